"""Tables 1 to 4 of the paper (section 4.2): more blocks in cascade, multi-grid, and how the best of them is inferred."""

from __future__ import annotations

from dlv3deploy.core.paper.recipe import Inference, Recipe, Stage, UnitRates
from dlv3deploy.core.paper.table import STRATEGIES, STRATEGY_COLUMNS, Table, dashed, marks
from dlv3deploy.core.spec import Architecture

BLOCKS = (4, 5, 6, 7)


def cascade(backbone: str, blocks: int, grid: UnitRates = (1, 1, 1), output_stride: int = 16) -> Stage:
    """Section 3.2: blocks 5 to 7 are copies of block 4, and the classifier stands right behind the last."""
    return Stage(Architecture(backbone, output_stride, head="cascade", blocks=blocks, multi_grid=grid))


def _table1() -> tuple[Recipe, ...]:
    published = {8: 75.18, 16: 73.88, 32: 70.06, 64: 59.99, 128: 42.34, 256: 20.29}
    batch = "the paper does not say which batch size was trained at output stride 8; 16 is taken, as at 16"
    return tuple(
        Recipe(
            name=f"table1/os-{stride}",
            labels=("mIOU", str(stride)),
            stages=(cascade("resnet50", 7, output_stride=stride),),
            inference=Inference(stride),
            published=miou,
            note=batch if stride == 8 else "",
        )
        for stride, miou in published.items()
    )


def _table2() -> tuple[Recipe, ...]:
    published = {"ResNet-50": (64.81, 72.14, 74.29, 73.88), "ResNet-101": (68.39, 73.21, 75.34, 75.76)}
    backbones = {"ResNet-50": "resnet50", "ResNet-101": "resnet101"}
    return tuple(
        Recipe(
            name=f"table2/{backbones[network]}-block{blocks}",
            labels=(network, f"block{blocks}"),
            stages=(cascade(backbones[network], blocks),),
            inference=Inference(16),
            published=miou,
        )
        for network, figures in published.items()
        for blocks, miou in zip(BLOCKS, figures, strict=True)
    )


def _table3() -> tuple[Recipe, ...]:
    published: dict[UnitRates, tuple[float, ...]] = {
        (1, 1, 1): (68.39, 73.21, 75.34, 75.76),
        (1, 2, 1): (70.23, 75.67, 76.09, 76.66),
        (1, 2, 3): (73.14, 75.78, 75.96, 76.11),
        (1, 2, 4): (73.45, 75.74, 75.85, 76.02),
        (2, 2, 2): (71.45, 74.30, 74.70, 74.62),
    }
    return tuple(
        Recipe(
            name=f"table3/block{blocks}-mg-{dashed(grid)}",
            labels=(str(grid), f"block{blocks}"),
            stages=(cascade("resnet101", blocks, grid),),
            inference=Inference(16),
            published=miou,
        )
        for grid, figures in published.items()
        for blocks, miou in zip(BLOCKS, figures, strict=True)
    )


def _table4() -> tuple[Recipe, ...]:
    published = (76.66, 78.05, 78.93, 79.35)
    return tuple(
        Recipe(
            name=f"table4/{inference.name}",
            labels=marks(inference),
            stages=(cascade("resnet101", 7, (1, 2, 1)),),
            inference=inference,
            published=miou,
        )
        for inference, miou in zip(STRATEGIES, published, strict=True)
    )


TABLE1 = Table(1, "ResNet-50 with block7 at different output strides", ("", "output stride"), _table1(), is_grid=True)
TABLE2 = Table(2, "More blocks in cascade, at output stride 16", ("Network", "block"), _table2(), is_grid=True)
TABLE3 = Table(3, "Multi-grid on ResNet-101, at output stride 16", ("Multi-Grid", "block"), _table3(), is_grid=True)
TABLE4 = Table(4, "Inference of block7 + MG(1, 2, 1)", STRATEGY_COLUMNS, _table4())
