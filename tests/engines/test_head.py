"""The last upsampling left to postprocessing: the same masks, where the graph's end is one that postprocessing can do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from calibration_graphs import quantized_deeplab
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tiny_models import HEIGHT, WIDTH, tiny_deeplab, tiny_spec, with_logits

from dlv3deploy.core.errors import CheckFailed, StaleArtefact
from dlv3deploy.core.graph import embed_spec, fix_input, simplified
from dlv3deploy.core.segmenter import Segmenter
from dlv3deploy.core.spec import ModelSpec, OutputSpec
from dlv3deploy.engines.build import build
from dlv3deploy.engines.manifest import Manifest
from dlv3deploy.engines.onnxruntime_engine import OnnxRuntimeEngine
from dlv3deploy.engines.open import open_engine
from dlv3deploy.engines.request import EngineRequest, default_rewrites
from dlv3deploy.engines.rewrites import certified as module
from dlv3deploy.engines.rewrites.certificate import certify, noise
from dlv3deploy.engines.rewrites.certified import certified
from dlv3deploy.engines.rewrites.head import NAME, without_head

pytest.importorskip("onnxruntime")

LOGITS = OutputSpec("logits")
SIZE, STRIDE, CLASSES = (7, 10), 2, 4
RULES = {"half_pixel": "half-pixel", "pytorch_half_pixel": "half-pixel", "align_corners": "align-corners"}


def upsampling(size: tuple[int, int] = SIZE, stride: int = STRIDE, seed: int = 0, scales: Any = None, **options: Any) -> Any:
    """One convolution of this stride, and the Resize of `options` back to `size`, or by `scales`."""
    height, width = size
    kernel = np.random.default_rng(seed).standard_normal((CLASSES, 3, stride, stride)).astype(np.float32)
    sizes = np.array([1, CLASSES, *options.pop("to", size)])
    given = ("", "scales") if scales is not None else ("", "", "sizes")
    numbers = {"kernel": kernel, "scales": np.asarray(scales or 1, np.float32), "sizes": sizes}
    chosen = {"mode": "linear", "coordinate_transformation_mode": "half_pixel", **options}
    nodes = [
        helper.make_node("Conv", ["image", "kernel"], ["scores"], "scores", strides=[stride] * 2),
        helper.make_node("Resize", ["scores", *given], ["logits"], "logits", **chosen),
    ]
    graph = helper.make_graph(
        nodes,
        "upsampling",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, height, width])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(numbers[name], name) for name in ("kernel", given[-1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return onnx.shape_inference.infer_shapes(model, data_prop=True)


def of_opset_10() -> onnx.ModelProto:
    """Whose Resize has no rule to choose, and reads scores elsewhere."""
    model = upsampling((8, 12), scales=[1, 1, 2, 2])
    resize = model.graph.node[-1]
    del resize.attribute[:]
    resize.attribute.append(helper.make_attribute("mode", "linear"))
    resize.input.remove("")
    model.opset_import[0].version = 10
    return model


def in_half_precision() -> onnx.ModelProto:
    """It rounds what it interpolates, which postprocessing does not."""
    model = upsampling()
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    for tensor in model.graph.initializer:
        if tensor.name == "kernel":
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), "kernel"))
    return model


@settings(max_examples=80, deadline=None)
@given(
    size=st.tuples(st.integers(8, 40), st.integers(8, 40)),
    stride=st.integers(1, 8),
    rule=st.sampled_from(sorted(RULES)),
    seed=st.integers(0, 1000),
)
def test_scores_and_their_interpolation_are_the_logits(size: tuple[int, int], stride: int, rule: str, seed: int) -> None:
    """Also where the input is no multiple of the stride, so that scales are no whole numbers."""
    plain = upsampling(size, stride, seed, coordinate_transformation_mode=rule)
    found = without_head(plain, LOGITS)
    assert found is not None
    model, output, change = found
    assert [node.op_type for node in model.graph.node] == ["Conv"]
    assert output == OutputSpec("scores", RULES[rule])
    rows, columns = (side // stride for side in size)
    assert change.form == f"{CLASSES}×{rows}×{columns} scores in place of {CLASSES}×{size[0]}×{size[1]}"
    certificate = certify(plain, model, noise((1, 3, *size)), output)
    assert certificate.is_exact
    assert certificate.agreement > 0.998


def test_scales_that_are_those_of_the_sizes_are_as_good() -> None:
    model = upsampling((8, 12), scales=[1, 1, 2, 2])
    assert without_head(model, LOGITS) is not None


@pytest.mark.parametrize(
    "model",
    [
        upsampling(mode="nearest"),
        upsampling(mode="cubic"),
        upsampling(coordinate_transformation_mode="asymmetric"),
        upsampling(antialias=1),
        upsampling(to=(14, 20)),
        upsampling(scales=[1, 1, 2.5, 2]),
        upsampling(keep_aspect_ratio_policy="not_larger"),
        of_opset_10(),
        in_half_precision(),
    ],
    ids=[
        *("nearest", "cubic", "asymmetric", "antialias", "larger than the input", "uneven scale", "aspect ratio kept"),
        *("of opset 10", "logits in half precision"),
    ],
)
def test_what_postprocessing_would_not_do_alike_stays(model: onnx.ModelProto) -> None:
    assert without_head(model, LOGITS) is None


def test_what_reads_logits_itself_stays() -> None:
    model = upsampling()
    model.graph.node.append(helper.make_node("Softmax", ["logits"], ["probabilities"], "probabilities", axis=1))
    model.graph.output[0].name = "probabilities"
    assert without_head(onnx.shape_inference.infer_shapes(model), LOGITS) is None


@pytest.mark.parametrize("kind", ["scores", "mask"])
def test_a_graph_that_does_not_return_logits_stays(kind: Any) -> None:
    assert without_head(upsampling(), OutputSpec(kind)) is None


def test_scores_that_are_read_at_a_shift_stay() -> None:
    assert without_head(upsampling(), OutputSpec("logits", shift=0.5)) is None


def test_an_open_batch_is_no_hindrance() -> None:
    model = fix_input(upsampling((8, 12), scales=[1, 1, 2, 2]), ("n", 3, 8, 12))
    found = without_head(model, LOGITS)
    assert found is not None and found[2].form.startswith("4×4×6 scores")


def test_a_certificate_tells_another_rule_apart() -> None:
    plain = upsampling()
    model, _, _ = without_head(plain, LOGITS)
    wrong = certify(plain, model, noise((1, 3, *SIZE)), OutputSpec("scores", "align-corners"))
    assert not wrong.is_exact and wrong.agreement < 1


@pytest.mark.parametrize("model", [tiny_deeplab, quantized_deeplab], ids=["float", "INT8"])
def test_it_is_proved_with_the_others(model: Any) -> None:
    plain = fix_input(with_logits(model()), (1, 3, HEIGHT, WIDTH))
    done = certified(plain, ("image-pooling", "head"), LOGITS, "tiny")
    assert done.names == ("image pooling folded", NAME)
    assert done.output == OutputSpec("scores")
    assert [dim.dim_value for dim in done.model.graph.output[0].type.tensor_type.shape.dim][2:] == [HEIGHT // 4, WIDTH // 4]


def test_a_wrong_rule_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dlv3deploy.engines.rewrites.head.COORDINATES", {"half_pixel": "align-corners"})
    with pytest.raises(CheckFailed, match="after the rewrites head outputs differ"):
        certified(fix_input(with_logits(tiny_deeplab()), (1, 3, HEIGHT, WIDTH)), ("head",), LOGITS, "tiny")
    assert module.NAMES[-1] == "head"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    model = with_logits(tiny_deeplab())
    embed_spec(model, spec())
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def spec() -> ModelSpec:
    return replace(tiny_spec(), output=LOGITS)


def request(source: Path, backend: str = "onnxruntime") -> EngineRequest:
    return EngineRequest(source, source, spec(), "fp32", backend, rewrites=default_rewrites(backend, LOGITS))


def frame(size: tuple[int, int], colours: int = 4) -> NDArray[np.uint8]:
    """Squares of colours, enough for more than one class."""
    small = np.random.default_rng(1).integers(0, 256, (colours, colours, 3), np.uint8)
    return np.kron(small, np.ones((size[0] // colours, size[1] // colours, 1), np.uint8))


def test_an_engine_returns_scores_and_its_masks_are_those_of_the_file(source: Path, tmp_path: Path) -> None:
    engine = tmp_path / "model.fp32.cpu.engine"
    manifest = build(request(source), engine)
    assert manifest.rewrites == (NAME,)
    assert Manifest.read(engine).spec.output == OutputSpec("scores")
    with open_engine(engine) as small, OnnxRuntimeEngine.open(source, spec()) as large:
        assert small.infer(np.zeros((1, 3, HEIGHT, WIDTH), np.float32)).shape[2:] == (HEIGHT // 4, WIDTH // 4)
        masks = [Segmenter(opened)(frame((HEIGHT, WIDTH))) for opened in (small, large)]
        np.testing.assert_array_equal(*masks)
        assert len(np.unique(masks[0])) > 1
        elsewhere = [Segmenter(opened)(frame((3 * HEIGHT, 2 * WIDTH))) for opened in (small, large)]
        assert np.mean(elsewhere[0] != elsewhere[1]) < 0.002


def test_an_engine_that_upsamples_and_says_it_does_not_is_refused(source: Path, tmp_path: Path) -> None:
    engine = tmp_path / "model.fp32.cpu.engine"
    manifest = build(replace(request(source), rewrites=()), engine)
    assert manifest.rewrites == () and manifest.spec.output == LOGITS
    replace(manifest, spec=replace(manifest.spec, output=OutputSpec("scores"))).write(engine.with_name(f"{engine.name}.json"))
    with pytest.raises(StaleArtefact, match="output kind"):
        open_engine(engine)


def test_the_head_goes_only_where_a_graph_has_one() -> None:
    assert default_rewrites("onnxruntime", LOGITS) == ("head",)
    assert default_rewrites("tensorrt-rtx", LOGITS) == ("dead-taps", "image-pooling", "head")
    for kind in ("scores", "mask"):
        assert "head" not in default_rewrites("tensorrt-rtx", OutputSpec(kind))
        assert default_rewrites("onnxruntime", OutputSpec(kind)) == ()


def test_tensorrt_compiles_it(source: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    engine = tmp_path / "model.fp32.tensorrt-rtx.engine"
    assert NAME in build(request(source, "tensorrt-rtx"), engine).rewrites
    assert simplified(onnx.load(source)).graph.node[-1].op_type == "Resize"  # the file stays as it is
