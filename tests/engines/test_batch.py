"""Engines for several images at once: what each would give alone, on every backend that opens a batch."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from calibration_graphs import quantized_deeplab
from tiny_models import HEIGHT, WIDTH, tiny_deeplab, tiny_spec, with_logits

from dlv3deploy.core.errors import UserError
from dlv3deploy.core.graph import fix_input, ports
from dlv3deploy.core.spec import OutputSpec
from dlv3deploy.engines.build import build
from dlv3deploy.engines.dialect import TENSORRT_RTX, add_profile
from dlv3deploy.engines.manifest import Manifest
from dlv3deploy.engines.onnxruntime_engine import OnnxRuntimeEngine
from dlv3deploy.engines.open import open_engine
from dlv3deploy.engines.open_batch import with_open_batch
from dlv3deploy.engines.pipelines.triton import write_triton
from dlv3deploy.engines.prepare import prepared
from dlv3deploy.engines.request import EngineRequest, default_rewrites, target_label
from dlv3deploy.engines.rewrites.certificate import _are_alike, require_several_images
from dlv3deploy.engines.tensorrt_backend import TensorRTBackend
from dlv3deploy.engines.tensorrt_options import TensorRTOptions

pytest.importorskip("onnxruntime")
MOST = 4


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(fix_input(tiny_deeplab(), ("n", 3, HEIGHT, WIDTH)).SerializeToString())
    return path


def request(source: Path, backend: str = "onnxruntime", **options: Any) -> EngineRequest:
    spec = tiny_spec()
    rewrites = default_rewrites("tensorrt-rtx", spec.output)
    plain = EngineRequest(source, source, spec, "fp32", backend, rewrites=rewrites, batch=MOST)
    return replace(plain, **options)


def test_images_come_out_as_they_do_alone(source: Path, tmp_path: Path) -> None:
    engine = tmp_path / "model.engine"
    manifest = build(request(source), engine)
    assert manifest.spec.input.dynamic_batch and manifest.rewrites == ("image pooling folded",)
    images = np.random.default_rng(0).standard_normal((MOST, 3, HEIGHT, WIDTH)).astype(np.float32)
    with open_engine(engine) as opened:
        assert opened.input_shape == (None, 3, HEIGHT, WIDTH)
        together = opened.infer(images)
        assert len(together) == MOST
        for image, scores in zip(images, together, strict=True):
            alone = opened.infer(image[None])[0]
            np.testing.assert_allclose(scores, alone, atol=1e-5 * np.abs(alone).max())


def test_a_file_that_says_it_takes_several_and_does_not_is_refused(source: Path, tmp_path: Path) -> None:
    model = onnx.load(source)
    inner = next(node for node in model.graph.node if node.name == "atrous")
    sizes = onnx.numpy_helper.from_array(np.array([1, 8, HEIGHT // 4, WIDTH // 4]), "one image")
    model.graph.initializer.append(sizes)
    index = list(model.graph.node).index(inner)
    model.graph.node.insert(index, onnx.helper.make_node("Reshape", ["features", "one image"], ["shaped"], "shaped"))
    inner.input[0] = "shaped"
    source.write_bytes(model.SerializeToString())
    with pytest.raises(UserError, match="takes one image alone, whatever its input says"):
        build(request(source, rewrites=()), tmp_path / "model.engine")


def test_a_rewrite_that_needs_one_image_is_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--batch with --rewrites regions: needs a fixed batch"):
        build(request(source, rewrites=("regions",)), tmp_path / "model.engine")


def test_int8_files_which_are_for_one_image_make_engines_for_several(source: Path, tmp_path: Path) -> None:
    quantised = tmp_path / "model.int8.onnx"
    quantised.write_bytes(quantized_deeplab().SerializeToString())
    engine, single = tmp_path / "model.engine", tmp_path / "single.engine"
    int8 = request(source, onnx=quantised, precision="int8")
    manifest = build(int8, engine)
    assert manifest.layer_precision == build(replace(int8, batch=1), single).layer_precision
    images = np.random.default_rng(0).standard_normal((MOST, 3, HEIGHT, WIDTH)).astype(np.float32)
    with open_engine(engine) as opened, open_engine(single) as one:
        together, alone = opened.infer(images), np.concatenate([one.infer(image[None]) for image in images])
    assert np.mean(together.argmax(1) == alone.argmax(1)) > 0.99  # a sum in another order may round to the next step


@pytest.mark.parametrize("opened", [True, False])
def test_sizes_in_a_graph_for_one_image_are_opened(opened: bool) -> None:
    """A Resize of its sizes, and a Reshape there and back."""
    model = with_logits(tiny_deeplab())
    for name, shape in (("flat", [1, -1]), ("back", list(ports(model, "it")[1].shape))):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(shape), f"{name}.shape"))
        model.graph.node.append(
            onnx.helper.make_node("Reshape", [model.graph.node[-1].output[0], f"{name}.shape"], [name], name)
        )
    model.graph.output[0].name = "back"
    several = fix_input(with_open_batch(model) if opened else model, ("n", 3, HEIGHT, WIDTH))
    with nullcontext() if opened else pytest.raises(UserError, match="takes one image alone"):
        require_several_images(several, "it")
    if opened:
        noise = np.random.default_rng(0).standard_normal((1, 3, HEIGHT, WIDTH)).astype(np.float32)
        spec = replace(tiny_spec(), output=OutputSpec("logits"))
        with (
            OnnxRuntimeEngine(model.SerializeToString(), spec, "it") as plain,
            OnnxRuntimeEngine(several.SerializeToString(), spec, "it") as open_,
        ):
            np.testing.assert_allclose(plain.infer(noise), open_.infer(noise), atol=1e-5)


def test_latency_is_that_of_the_whole_batch(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[int] = []
    infer = OnnxRuntimeEngine.infer
    monkeypatch.setattr(OnnxRuntimeEngine, "infer", lambda engine, batch: (given.append(len(batch)), infer(engine, batch))[1])
    build(request(source), tmp_path / "model.engine")
    assert set(given) == {MOST}


def test_a_file_for_one_image_is_refused(source: Path, tmp_path: Path) -> None:
    source.write_bytes(fix_input(onnx.load(source), (1, 3, HEIGHT, WIDTH)).SerializeToString())
    with pytest.raises(UserError, match=r"--batch 4: .*model.onnx takes one image; export it with --dynamic-batch"):
        build(request(source), tmp_path / "model.engine")
    assert not (tmp_path / "model.engine").exists()


def test_one_image_stays_the_rule(source: Path) -> None:
    for batch, size in ((1, 1), (MOST, None)):
        assert ports(prepared(request(source, batch=batch)).model, "a graph")[0].shape[0] == size
    assert target_label("onnxruntime", TensorRTOptions(), None) == "cpu"
    assert target_label("onnxruntime", TensorRTOptions(), None, MOST) == "cpu-batch4"


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_tensorrt_compiles_one_profile_of_1_to_the_most(source: Path, tmp_path: Path, precision: Any) -> None:
    pytest.importorskip("tensorrt_rtx")
    asked = request(source, "tensorrt-rtx", precision=precision)
    manifest = build(asked, tmp_path / "model.engine")
    assert manifest.builder.flags["most_images"] == MOST
    assert TensorRTOptions.from_flags(manifest.builder.flags, ()).most_images == MOST
    assert Manifest.read(tmp_path / "model.engine").spec.input.dynamic_batch


def test_a_plan_is_of_one_image(source: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    one, several = (
        TensorRTBackend(TENSORRT_RTX, TensorRTOptions(most_images=batch)).plan(
            prepared(request(source, "tensorrt-rtx", batch=batch)).model.SerializeToString(), "graph"
        )
        for batch in (1, MOST)
    )
    assert (one.bytes_moved, one.convolutions) == (several.bytes_moved, several.convolutions)


def test_the_profile_is_fastest_for_the_most() -> None:
    """On a stand-in: no version tells what profiles a configuration has."""
    profiles: list[Any] = []
    shapes: list[Any] = []
    builder = SimpleNamespace(
        create_optimization_profile=lambda: SimpleNamespace(set_shape=lambda *given: shapes.append(given))
    )
    config = SimpleNamespace(add_optimization_profile=profiles.append)
    for batch in (-1, 1):
        network = SimpleNamespace(get_input=lambda _index, batch=batch: SimpleNamespace(name="image", shape=(batch, 3, 8, 9)))
        add_profile(builder, network, config, TensorRTOptions(most_images=MOST))
    assert shapes == [("image", (1, 3, 8, 9), (MOST, 3, 8, 9), (MOST, 3, 8, 9))]
    assert len(profiles) == 1


def test_triton_puts_waiting_requests_together(source: Path, tmp_path: Path) -> None:
    config_pb2 = pytest.importorskip("tritonclient.grpc.model_config_pb2")
    from google.protobuf import text_format

    engine = tmp_path / "model.engine"
    manifest = build(request(source), engine)
    one = ports(fix_input(tiny_deeplab(), (1, 3, HEIGHT, WIDTH)), "tiny")
    folder = write_triton(tmp_path / "repository", "deeplab", engine, manifest, one, MOST)
    config = text_format.Parse((folder / "config.pbtxt").read_text(), config_pb2.ModelConfig())
    assert config.max_batch_size == MOST and config.HasField("dynamic_batching")
    assert tuple(config.input[0].dims) == (3, HEIGHT, WIDTH)


def test_what_does_not_go_with_it_is_refused(source: Path, tmp_path: Path) -> None:
    from command_line import run

    words = ("build-engine", source, "--workspace", tmp_path / "w", "--batch", 2)
    done = run(*words, "--backend", "onnxruntime", "--export", "deepstream")
    assert done.exit_code == 1 and "nvinfer builds its own engine of the folder's graph" in done.stderr, done.stderr


def test_the_engine_is_named_after_its_batch(source: Path, tmp_path: Path) -> None:
    from command_line import succeed

    from dlv3deploy.core.graph import embed_spec

    model = onnx.load(source)
    embed_spec(model, replace(tiny_spec(), input=replace(tiny_spec().input, dynamic_batch=True)))
    source.write_bytes(model.SerializeToString())
    succeed("build-engine", "--workspace", tmp_path, "--backend", "onnxruntime", "--batch", 2, "--export", "triton")
    engine = tmp_path / "model.fp32.cpu-batch2.engine"
    facts = json.loads(succeed("inspect", engine, "--json").stdout)
    assert "--batch 2" in facts["manifest"]["command"] and facts["spec"]["input"]["dynamic_batch"]
    assert "max_batch_size: 2" in (tmp_path / "triton" / "model" / "config.pbtxt").read_text()


def test_sizes_that_are_not_of_images_stay() -> None:
    """Those of a Resize of other axes, of a Reshape in which 0 is none, and of a constant's."""
    numbers = {"axes": [1, 8], "none": [1, 8, 16, 24], "constant": [1, 8, 1, 1], "bias": [0.0] * 8}
    weights = [
        onnx.numpy_helper.from_array(np.array(values, np.float32 if name == "bias" else np.int64), name)
        for name, values in numbers.items()
    ]
    make = onnx.helper.make_node
    nodes = [
        make("Resize", ["image", "", "", "axes"], ["resized"], axes=[2, 3]),
        make("Reshape", ["resized", "none"], ["kept"], allowzero=1),
        make("Reshape", ["bias", "constant"], ["shaped"]),
    ]
    tensors = [onnx.helper.make_tensor_value_info(name, 1, None) for name in ("image", "kept", "shaped")]
    graph = onnx.helper.make_graph(nodes, "sizes", tensors[:1], tensors[1:], weights)
    model = onnx.helper.make_model(graph)
    assert with_open_batch(model) == model


@pytest.mark.parametrize(("flipped", "int8", "alike"), [(3, True, True), (3, False, False), (30, True, False)])
def test_an_int8_graph_may_round_some_positions_otherwise(flipped: int, int8: bool, alike: bool) -> None:
    """Of 1024; where classes change in more of them, an image is not alone."""
    scores = np.random.default_rng(0).standard_normal((1, 4, 32, 32)).astype(np.float32)
    other = scores * (1.01 if int8 else 1)
    for place in range(flipped):
        other[0, :, 0, place] = -other[0, :, 0, place]
    assert _are_alike(other, scores, int8) == alike
