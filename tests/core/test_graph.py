"""ONNX files: whole ones are read, all others are one clear error; ports, the spec inside, and fixing a size."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from core.stand_ins import conv_graph, graph_of, spec_with
from onnx import TensorProto, helper

from dlv3deploy.core.errors import UserError
from dlv3deploy.core.graph import embed_spec, embedded_spec, fix_input, load_onnx, ports, save_onnx, simplified, tensor_shapes
from dlv3deploy.core.spec import SPEC_KEY


def identity(**settings: Any) -> onnx.ModelProto:
    return graph_of([helper.make_node("Identity", ["image"], ["result"])], **settings)


def refused(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        load_onnx(path)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_saved_model_is_read_as_it_was(tmp_path: Path) -> None:
    model = conv_graph(pads=[1] * 4)
    save_onnx(tmp_path / "a" / "m.onnx", model)
    assert load_onnx(tmp_path / "a" / "m.onnx") == model


def test_a_file_that_is_cut_short_is_refused_wherever_it_is_cut(tmp_path: Path) -> None:
    model = conv_graph(pads=[1] * 4)
    whole = model.SerializeToString()
    for length in (*range(0, len(whole), 5), *range(len(whole) - 30, len(whole))):
        assert "m.onnx: is " in refused(tmp_path / "m.onnx", whole[:length])


def test_a_flipped_bit_never_ends_in_another_exception(tmp_path: Path) -> None:
    model = conv_graph(pads=[1] * 4)
    embed_spec(model, spec_with(5, 8, 8))
    whole, path, outcomes = model.SerializeToString(), tmp_path / "m.onnx", set()
    for i in range(0, len(whole), 5):
        path.write_bytes(whole[:i] + bytes([whole[i] ^ 0x15]) + whole[i + 1 :])
        try:
            ports(load_onnx(path), "m")
            embedded_spec(load_onnx(path), "m")
            outcomes.add("read")
        except UserError:
            outcomes.add("refused")
    assert outcomes == {"read", "refused"}


@pytest.mark.parametrize("content", [b"this is a text\n" * 9, b"\0" * 99, b"{}", b"\x89PNG\r\n\x1a\n" + b"x" * 99])
def test_what_is_no_onnx_is_refused(tmp_path: Path, content: bytes) -> None:
    assert "is no whole ONNX file" in refused(tmp_path / "m.onnx", content)


def test_a_checkpoint_is_to_be_exported(tmp_path: Path) -> None:
    assert "export it first: dlv3deploy export" in refused(tmp_path / "m.safetensors", b"\x08\0\0\0\0\0\0\0{}      ")


def test_missing_and_empty_files_and_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.onnx").touch()
    for name in ("none.onnx", "empty.onnx", "."):
        with pytest.raises(UserError, match="dlv3deploy export"):
            load_onnx(tmp_path / name)


def test_a_graph_without_nodes_is_refused(tmp_path: Path) -> None:
    assert "holds no graph" in refused(tmp_path / "m.onnx", graph_of([]).SerializeToString())


def test_a_file_of_a_later_onnx_is_refused_with_the_versions(tmp_path: Path) -> None:
    model = identity()
    model.ir_version = 99
    assert "ir_version 99 is higher" in refused(tmp_path / "m.onnx", model.SerializeToString())


def test_weights_in_another_file_are_refused_with_the_way_to_one_file(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(conv_graph(), str(path), save_as_external_data=True, location="weights.bin", size_threshold=0)
    with pytest.raises(UserError, match=r"m\.onnx: keeps its weights in other files"):
        load_onnx(path)
    onnx.save(onnx.load(str(path)), str(tmp_path / "one.onnx"))  # as the message says
    loaded = load_onnx(tmp_path / "one.onnx")
    assert np.array_equal(onnx.numpy_helper.to_array(loaded.graph.initializer[0]), np.ones((5, 3, 3, 3)))


def test_ports_are_the_image_and_the_map_weights_left_out() -> None:
    model = conv_graph(given=(None, 3, "H", "W"), result=(None, 5, "h", 7), pads=[1] * 4)
    model.graph.input.append(helper.make_tensor_value_info("weight", TensorProto.FLOAT, (5, 3, 3, 3)))  # as ONNX 1.2 had it
    given, result = ports(model, "m")
    assert (given.name, given.shape, given.is_integer) == ("image", (None, 3, None, None), False)
    assert (result.name, result.shape, result.is_integer) == ("result", (None, 5, None, 7), False)


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        ({"given": (1, 1, 8, 8)}, "takes image 1×1×8×8"),
        ({"given": (1, 8, 8, 3)}, "takes image 1×8×8×3"),
        ({"given": (3, 8, 8)}, "takes image 3×8×8"),
        ({"given": None}, "takes image "),
        ({"given_type": TensorProto.UINT8}, "takes image 1×3×8×8 integers"),
        ({"result": (1, 5)}, "returns result 1×5"),
        ({"result": None}, "returns result "),
    ],
)
def test_a_graph_of_another_form_is_refused(settings: dict[str, Any], rule: str) -> None:
    with pytest.raises(UserError, match=f"m: {rule}"):
        ports(identity(**settings), "m")


def test_two_inputs_or_outputs_are_refused() -> None:
    model = identity()
    model.graph.input.append(helper.make_tensor_value_info("second", TensorProto.FLOAT, (1, 3, 8, 8)))
    with pytest.raises(UserError, match="2 inputs and 1 outputs"):
        ports(model, "m")


def test_a_spec_is_taken_out_as_it_was_put_in_and_the_newest_counts() -> None:
    model, spec = identity(), spec_with(5, 8, 8)
    assert embedded_spec(model, "m") is None
    helper.set_model_props(model, {"author": "somebody"})
    embed_spec(model, spec)
    embed_spec(model, spec.made_from(checkpoint="ab"))
    assert embedded_spec(model, "m") == spec.made_from(checkpoint="ab")
    assert [entry.key for entry in model.metadata_props] == ["author", SPEC_KEY]


def test_a_damaged_spec_inside_is_refused_by_the_files_name() -> None:
    model = identity()
    helper.set_model_props(model, {SPEC_KEY: '{"format": 1}'})
    with pytest.raises(UserError, match=r"^m\.onnx: holds a damaged model description"):
        embedded_spec(model, "m.onnx")


def shape_dependent(given: tuple[int | str | None, ...]) -> onnx.ModelProto:
    """Pools, and resizes back to the image's own size, as exporters of dynamic models write it."""
    nodes = [
        helper.make_node("AveragePool", ["image"], ["small"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Shape", ["image"], ["size"]),
        helper.make_node("Resize", ["small", "", "", "size"], ["result"], mode="linear"),
    ]
    return graph_of(nodes, given, (1, 3, given[2], given[3]))


@pytest.mark.parametrize("given", [(1, 3, "H", "W"), (None, 3, None, None), (1, 3, 8, 8), (2, 3, 64, 64)])
def test_a_fixed_input_fixes_the_shapes_of_all_that_follows(given: tuple[int | str | None, ...]) -> None:
    model = onnx.shape_inference.infer_shapes(shape_dependent(given))  # with the shapes of another size noted inside
    before = model.SerializeToString()
    fixed = fix_input(model, (1, 3, 24, 40))
    shapes = tensor_shapes(fixed.graph)
    assert shapes["image"] == (1, 3, 24, 40)
    assert shapes["small"] == (1, 3, 6, 10)
    assert shapes["result"] == (1, 3, 24, 40)
    onnx.checker.check_model(fixed, full_check=True)
    assert model.SerializeToString() == before


def test_simplifying_keeps_function_names_and_spec() -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    nodes = [
        helper.make_node("Identity", ["image"], ["same"]),
        helper.make_node("Add", ["one", "one"], ["two"]),
        helper.make_node("Mul", ["same", "two"], ["result"]),
    ]
    model = graph_of(nodes, result=(1, 3, 8, 8), weights={"one": np.float32(1)})
    embed_spec(model, spec_with(3, 8, 8))
    smaller = simplified(model)
    assert [node.op_type for node in smaller.graph.node] == ["Mul"]
    assert embedded_spec(smaller, "m") == spec_with(3, 8, 8)
    image = np.random.default_rng(0).standard_normal((1, 3, 8, 8)).astype(np.float32)
    session = runtime.InferenceSession(smaller.SerializeToString(), providers=["CPUExecutionProvider"])
    assert np.array_equal(session.run(["result"], {"image": image})[0], 2 * image)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("kernel", [(3, 3), (2, 4)])
@pytest.mark.parametrize("rule", ["SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize("given", [(1, 3, 11, 8), (1, 3, "H", "W")])
def test_simplifying_same_padded_atrous_convolutions_leaves_what_pytorch_computes(
    kernel: tuple[int, int], rule: str, given: tuple[Any, ...]
) -> None:
    pytest.importorskip("onnxscript")
    torch, runtime = pytest.importorskip("torch"), pytest.importorskip("onnxruntime")
    random = np.random.default_rng(0)
    weight = random.standard_normal((5, 3, *kernel)).astype(np.float32)
    node = helper.make_node("Conv", ["image", "weight"], ["result"], auto_pad=rule, dilations=[2, 3])
    model = graph_of([node], given, (1, 5, *given[2:]), {"weight": weight})
    before = model.SerializeToString()
    image = random.standard_normal((1, 3, 11, 8)).astype(np.float32)
    # PyTorch pads more at the end, as SAME_UPPER does; SAME_LOWER is that in the mirror.
    turn = (2, 3) if rule == "SAME_LOWER" else ()
    mirrored = (torch.from_numpy(np.flip(a, turn).copy()) for a in (image, weight))
    theirs = torch.nn.functional.conv2d(*mirrored, padding="same", dilation=(2, 3)).numpy()
    session = runtime.InferenceSession(simplified(model).SerializeToString(), providers=["CPUExecutionProvider"])
    assert np.allclose(session.run(None, {"image": image})[0], np.flip(theirs, turn), atol=1e-5)
    assert model.SerializeToString() == before


def test_without_onnxscript_simplifying_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    monkeypatch.setitem(sys.modules, "onnxscript.optimizer", None)
    with pytest.raises(UserError, match="pip install onnxscript"):
        simplified(identity())
