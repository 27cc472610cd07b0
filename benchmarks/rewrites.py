"""What the exact rewrites save, and what TensorRT-RTX's compiler makes of them: kernels and bytes, on a machine without a GPU.

    python benchmarks/rewrites.py --shared ../shared --workspace DIR
    python benchmarks/rewrites.py --shared ../shared --workspace DIR --case camvid

Networks that are not in the folder have random weights: neither work nor plan depends on them. INT8 is calibrated on noise by
min-max, which decides nothing but scales. A run of all cases writes benchmarks/results/rewrites.md, any other DIR/rewrites.md.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from machine import installed, this_machine
from markdown import markdown_table, page
from random_networks import calibrated_on_noise, fresh_graph

from dlv3deploy.core.errors import Dlv3Error, UserError
from dlv3deploy.core.files import write_text
from dlv3deploy.core.graph import convolutions, fix_input, load_onnx, simplified
from dlv3deploy.core.progress import say
from dlv3deploy.core.spec import Architecture, OutputSpec
from dlv3deploy.engines.dialect import TENSORRT_RTX
from dlv3deploy.engines.precision import to_float16
from dlv3deploy.engines.rewrites.certified import BY_DEFAULT, certificate_of
from dlv3deploy.engines.rewrites.change import Change
from dlv3deploy.engines.rewrites.rewrite import HEAD, IN_THEIR_ORDER, NAMES, apply
from dlv3deploy.engines.tensorrt_backend import OF_A_PLAN, TensorRTBackend

if TYPE_CHECKING:
    from onnx import ModelProto

TABLE = Path(__file__).parent / "results" / "rewrites.md"
HEADER = ("network", "precision", "rewrites", "changed", "G MACs", "kernels", "MB moved", "difference")
Size = tuple[int, int]
SETS: dict[str, tuple[str, ...]] = {
    "none": (),
    **{name: (name,) for name in NAMES},
    "those by default": (*BY_DEFAULT, HEAD),
    "all but sub-grids": (*IN_THEIR_ORDER, HEAD),
}
EXPLAINED = """\
- `changed`: convolutions that a rewrite changed, and a last Resize (`head`), whose scores are compared as postprocessing
  interpolates them. Rows that change nothing, or what a row above changes, are left out.
- `G MACs`: 10⁹ multiply-accumulates of all convolutions, padding included.
- `kernels`: of convolutions + others, in the plan that TensorRT-RTX compiles for compute capability {capability}; `MB moved`:
  the activations that these read and write (10⁶ bytes). Nothing was timed.
- `difference`: the largest of all outputs for two inputs of noise, over the largest output, by ONNX Runtime without
  optimisation; of FP16 in the graph before its conversion. In INT8 a sum in another order may round to the next step."""


@dataclass(frozen=True)
class Case:
    """`graph` makes the float graph, of fixed size."""

    title: str
    graph: Callable[[], ModelProto]


def cases(shared: Path) -> dict[str, Case]:
    models = shared / "models"
    found = {
        "camvid": Case("MobileNetV2, CamVid, 360×480", partial(_file, models / "deeplabv3_mnv2_camvid.onnx", (360, 480))),
        "voc": Case("MobileNetV2, VOC (Google's), 513×513", partial(_file, models / "deeplabv3_mnv2_voc_513.onnx", (513, 513))),
    }
    for rates, stride, size in (
        *(((12, 24, 36), stride, (520, 520)) for stride in (8, 16)),
        *(((6, 12, 18), 16, size) for size in ((513, 513), (256, 512))),
        ((12, 24, 36), 8, (513, 513)),
    ):
        whose = "torchvision's" if size == (520, 520) else "the paper's"
        title = f"ResNet-50, {whose}, rates {', '.join(map(str, rates))}, output stride {stride}, {size[0]}×{size[1]}"
        architecture = Architecture("resnet50", stride, rates, final_convolution=whose == "torchvision's")
        found[f"resnet50-{stride}-{rates[0]}-{size[0]}x{size[1]}"] = Case(title, partial(fresh_graph, architecture, size))
    for name, title, architecture in (
        ("resnet101", "ResNet-101, rates 6, 12, 18", Architecture("resnet101", final_convolution=False)),
        ("mobilenet_v3", "MobileNetV3-Large, rates 12, 24, 36", Architecture("mobilenet_v3_large", aspp_rates=(12, 24, 36))),
        ("lraspp", "MobileNetV3-Large, LR-ASPP", Architecture("mobilenet_v3_large", head="lraspp")),
    ):
        found[name] = Case(f"{title}, output stride 16, 513×513", partial(fresh_graph, architecture, (513, 513)))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, required=True, help="folder with the models")
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--case", action="append", default=[], help="one of the cases, may be repeated; default: all")
    options = parser.parse_args()
    known, rows = cases(options.shared), list[tuple[str, ...]]()
    facts = [*this_machine(None).lines(), f"tensorrt-rtx {installed('tensorrt-rtx')}, onnx {installed('onnx')}"]
    facts += [f"date: {date.today().isoformat()}", f"command: `python benchmarks/rewrites.py {shlex.join(sys.argv[1:])}`"]
    to = options.workspace / "rewrites.md" if options.case else TABLE
    try:
        for name in options.case or known:
            if name not in known:
                raise UserError(f"--case {name}", "is unknown", f"give one of {', '.join(known)}")
            for row in _rows(known[name]):
                rows.append(row)
                table, explained = markdown_table(HEADER, rows), EXPLAINED.format(capability=OF_A_PLAN)
                write_text(to, page("Exact rewrites", facts, table, explained, "benchmarks/rewrites.py"))
    except Dlv3Error as error:
        say(f"error: {error}")
        return error.exit_code
    say(f"wrote {to}")
    return 0


def _rows(case: Case) -> Iterator[tuple[str, ...]]:
    backend, plain = TensorRTBackend(TENSORRT_RTX), case.graph()
    height, width = (d.dim_value for d in plain.graph.input[0].type.tensor_type.shape.dim[2:])
    returned = plain.graph.output[0].type.tensor_type.shape.dim[2:]
    output = OutputSpec("logits" if [d.dim_value for d in returned] == [height, width] else "scores")
    for precision, graph in (("FP32", plain), ("FP16", plain), ("INT8", calibrated_on_noise(plain))):
        seen = list[list[Change]]()
        for name, rewrites in SETS.items():
            done = apply(graph, rewrites, output)
            changed, changes = done.model, done.changes
            if changes in seen:
                continue
            seen.append(changes)
            say(f"{case.title}: {precision}, {name}")
            typed = to_float16(simplified(changed)) if precision == "FP16" else changed
            plan = backend.plan(typed.SerializeToString(), case.title)
            apart = certificate_of(graph, output, done) if changes else None
            macs = sum(conv.macs for conv in convolutions(changed, height, width))
            yield (
                *(case.title, precision, name, str(len({change.node for change in changes})), f"{macs / 1e9:.3f}"),
                *(f"{plan.convolutions} + {plan.others}", f"{plan.bytes_moved / 1e6:.1f}"),
                "–" if apart is None else f"{apart.difference:.1e}",
            )


def _file(path: Path, size: Size) -> ModelProto:
    return fix_input(simplified(load_onnx(path)), (1, 3, *size))


if __name__ == "__main__":
    sys.exit(main())
