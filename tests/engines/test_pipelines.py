"""What Triton and DeepStream are given: the published forms, and a graph that computes what the model and its masks do."""

from __future__ import annotations

import configparser
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto
from tiny_models import HEIGHT, WIDTH, tiny_deeplab, tiny_spec, write_tiny

from dlv3deploy.core.errors import UserError
from dlv3deploy.core.graph import fix_input, ports
from dlv3deploy.core.postprocess import mask_from_scores
from dlv3deploy.core.preprocess import geometry_of
from dlv3deploy.core.spec import Coordinates, InputSpec, ModelSpec
from dlv3deploy.engines.build import build
from dlv3deploy.engines.manifest import Manifest
from dlv3deploy.engines.pipelines.deepstream import common_std, pixels_to_probabilities, write_deepstream
from dlv3deploy.engines.pipelines.triton import write_triton
from dlv3deploy.engines.request import EngineRequest
from dlv3deploy.engines.tensorrt_options import TensorRTOptions

onnxruntime = pytest.importorskip("onnxruntime")

# Keys of the group [property] by gstnvinfer_property_parser.h of DeepStream 6.4 to 8.0, of which these concern a segmentation.
PUBLISHED_KEYS = {
    *("gpu-id", "gie-unique-id", "onnx-file", "model-engine-file", "labelfile-path", "int8-calib-file", "batch-size"),
    *("network-mode", "network-type", "infer-dims", "model-color-format", "net-scale-factor", "offsets"),
    *("maintain-aspect-ratio", "symmetric-padding", "num-detected-classes", "segmentation-threshold"),
    *("segmentation-output-order", "output-blob-names", "workspace-size", "enable-dla", "use-dla-core"),
    *("process-mode", "interval", "output-tensor-meta", "force-implicit-batch-dim", "symmetric-padding"),
}


@pytest.fixture
def graph() -> ModelProto:
    return fix_input(tiny_deeplab(), (1, 3, HEIGHT, WIDTH))


@pytest.fixture
def built(tmp_path: Path) -> tuple[Path, Manifest]:
    source = write_tiny(tmp_path / "model.onnx")
    return tmp_path / "model.engine", build(
        EngineRequest(source, source, tiny_spec(), "fp32", "onnxruntime"), tmp_path / "model.engine"
    )


def spec_with(coordinates: Coordinates = "half-pixel", **given: object) -> ModelSpec:
    spec = tiny_spec()
    return replace(
        spec,
        input=replace(spec.input, **given),  # type: ignore[arg-type]  # texts of parameters
        output=replace(spec.output, coordinates=coordinates),
    )


def test_triton_reads_its_configuration(built: tuple[Path, Manifest], graph: ModelProto, tmp_path: Path) -> None:
    config_pb2 = pytest.importorskip("tritonclient.grpc.model_config_pb2")
    from google.protobuf import text_format

    engine, manifest = built
    model = write_triton(tmp_path / "repository", "deeplab", engine, manifest, ports(graph, "tiny"))
    config = text_format.Parse((model / "config.pbtxt").read_text(), config_pb2.ModelConfig())
    given, result = ports(graph, "tiny")
    assert (config.name, config.platform, config.max_batch_size) == ("deeplab", "onnxruntime_onnx", 0)
    (input_,), (output,) = config.input, config.output
    assert (input_.name, tuple(input_.dims), input_.data_type) == (given.name, (1, 3, HEIGHT, WIDTH), config_pb2.TYPE_FP32)
    assert (output.name, tuple(output.dims)) == (result.name, result.shape) and output.label_filename == "labels.txt"
    assert config.instance_group[0].kind == config_pb2.ModelInstanceGroup.KIND_CPU
    assert config.parameters["mean"].string_value.count(",") == 2
    assert (model / "labels.txt").read_text().splitlines() == list(manifest.spec.classes.names)
    assert (model / "1" / "model.onnx").read_bytes() == engine.read_bytes()


def test_triton_takes_a_plan_under_its_own_name_and_none_of_tensorrt_rtx(
    built: tuple[Path, Manifest], graph: ModelProto, tmp_path: Path
) -> None:
    """The plan is played: TensorRT does not build here."""
    engine, manifest = built
    builder, target = replace(manifest.builder, name="tensorrt"), replace(manifest.target, device="Orin")
    model = write_triton(tmp_path, "a", engine, replace(manifest, builder=builder, target=target), ports(graph, "tiny"))
    assert (model / "1" / "model.plan").is_file() and "KIND_GPU" in (model / "config.pbtxt").read_text()
    portable = replace(manifest, builder=replace(builder, name="tensorrt-rtx"))
    with pytest.raises(UserError, match="Triton runs no engines of tensorrt-rtx"):
        write_triton(tmp_path, "b", engine, portable, ports(graph, "tiny"))


@pytest.mark.parametrize("coordinates", ["half-pixel", "align-corners"])
def test_deepstreams_graph_takes_its_pixels_to_the_mask_of_the_model(graph: ModelProto, coordinates: Coordinates) -> None:
    spec = spec_with(coordinates, mean=(110.0, 120.0, 90.0), std=(40.0, 60.0, 80.0))
    pixels = np.random.default_rng(3).integers(0, 256, (1, 3, HEIGHT, WIDTH)).astype(np.float32)
    mean, std = (np.asarray(values, np.float32).reshape(1, 3, 1, 1) for values in (spec.input.mean, spec.input.std))
    name = ports(graph, "tiny")[0].name
    scores = onnxruntime.InferenceSession(graph.SerializeToString()).run(None, {name: (pixels - mean) / std})[0]
    expected = mask_from_scores(scores[0], geometry_of(HEIGHT, WIDTH, spec.input), spec.output)

    session = onnxruntime.InferenceSession(pixels_to_probabilities(graph, spec).SerializeToString())
    given = (pixels - mean) / np.float32(common_std(spec))  # what nvinfer computes
    (probabilities,) = session.run(None, {"pixels": given})
    assert probabilities.shape == (1, len(spec.classes.names), HEIGHT, WIDTH)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    assert (probabilities[0].argmax(axis=0) == expected).mean() > 0.999


def properties(folder: Path) -> configparser.SectionProxy:
    config = configparser.ConfigParser()
    config.read_string((folder / "config_infer.txt").read_text())
    assert config.sections() == ["property"]
    return config["property"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"model-color-format": "0", "maintain-aspect-ratio": "0", "symmetric-padding": "0"}),
        ({"colour_order": "bgr", "resize": "letterbox"}, {"model-color-format": "1", "maintain-aspect-ratio": "1"}),
        ({"mean": (1.0, 2.5, 3.0)}, {"offsets": "1;2.5;3"}),
    ],
)
def test_nvinfer_gets_keys_that_it_knows_and_what_they_mean(
    graph: ModelProto, given: dict[str, object], expected: dict[str, str], tmp_path: Path
) -> None:
    spec = spec_with(**given)
    write_deepstream(tmp_path, graph, spec, "fp16")
    found = properties(tmp_path)
    assert set(found) <= PUBLISHED_KEYS
    assert (found["network-type"], found["network-mode"], found["infer-dims"]) == ("2", "2", f"3;{HEIGHT};{WIDTH}")
    assert float(found["net-scale-factor"]) == pytest.approx(1 / common_std(spec))
    assert {key: found[key] for key in expected} == expected
    assert int(found["num-detected-classes"]) == len((tmp_path / found["labelfile-path"]).read_text().splitlines())
    assert (tmp_path / found["onnx-file"]).is_file() and "int8-calib-file" not in found


def test_what_an_engine_is_asked_for_is_asked_of_nvinfer_too(graph: ModelProto, tmp_path: Path) -> None:
    write_deepstream(tmp_path, graph, tiny_spec(), "fp16", options=TensorRTOptions(workspace_mb=256, dla_core=1))
    found = properties(tmp_path)
    assert set(found) <= PUBLISHED_KEYS
    assert (found["workspace-size"], found["enable-dla"], found["use-dla-core"]) == ("256", "1", "1")


@pytest.mark.parametrize(
    ("flags", "check"),
    [
        ({"dla_core": 1}, lambda config: config.instance_group[0].secondary_devices[0].device_id == 1),
        (
            {"providers": ["TensorrtExecutionProvider"]},
            lambda config: config.optimization.execution_accelerators.gpu_execution_accelerator[0].name == "tensorrt",
        ),
        ({}, lambda config: not config.instance_group[0].secondary_devices and not config.HasField("optimization")),
    ],
)
def test_triton_is_told_of_a_dla_and_of_onnx_runtimes_provider(
    built: tuple[Path, Manifest],
    graph: ModelProto,
    tmp_path: Path,
    flags: dict[str, object],
    check: Callable[[Any], bool],
) -> None:
    config_pb2 = pytest.importorskip("tritonclient.grpc.model_config_pb2")
    from google.protobuf import text_format

    engine, manifest = built
    asked = replace(manifest, builder=replace(manifest.builder, flags=flags))
    model = write_triton(tmp_path / "repository", "deeplab", engine, asked, ports(graph, "tiny"))
    assert check(text_format.Parse((model / "config.pbtxt").read_text(), config_pb2.ModelConfig()))


def test_int8_goes_by_the_calibration_cache(graph: ModelProto, tmp_path: Path) -> None:
    (tmp_path / "made.cache").write_text("TRT-100300-EntropyCalibration2\n")
    write_deepstream(tmp_path / "deepstream", graph, tiny_spec(), "int8", tmp_path / "made.cache")
    found = properties(tmp_path / "deepstream")
    assert found["network-mode"] == "1"
    assert (tmp_path / "deepstream" / found["int8-calib-file"]).read_text().startswith("TRT-")


def test_tensors_keep_the_names_that_a_cache_knows_them_by(graph: ModelProto) -> None:
    changed = pixels_to_probabilities(graph, tiny_spec())
    named = {name for node in changed.graph.node for name in node.output}
    given, result = ports(graph, "tiny")
    assert {given.name, result.name} <= named


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        (replace(tiny_spec(), output=replace(tiny_spec().output, kind="mask")), "needs scores"),
        (replace(tiny_spec(), output=replace(tiny_spec().output, shift=0.25)), "has no shift of scores"),
    ],
)
def test_what_nvinfer_cannot_do_is_refused(graph: ModelProto, spec: ModelSpec, says: str) -> None:
    with pytest.raises(UserError, match=f"--export deepstream.*{says}"):
        pixels_to_probabilities(graph, spec)


def test_one_deviation_stands_for_all(graph: ModelProto) -> None:
    spec = spec_with(std=(2.0, 2.0, 2.0))
    assert common_std(spec) == pytest.approx(2.0) and isinstance(spec.input, InputSpec)
