"""What a table of the paper is, and the columns in which Tables 4 and 6 mark an inference strategy."""

from __future__ import annotations

from dataclasses import dataclass

from dlv3deploy.core.paper.recipe import Inference, Recipe
from dlv3deploy.core.strategy import PAPER_SCALES

YES, NO = "✓", ""
STRATEGIES = (Inference(16), Inference(8), Inference(8, PAPER_SCALES), Inference(8, PAPER_SCALES, flip=True))
STRATEGY_COLUMNS = ("OS=16", "OS=8", "MS", "Flip")


@dataclass(frozen=True)
class System:
    """A row without a recipe: somebody else's result, as the paper lists it; `published` is the mIoU in percent."""

    labels: tuple[str, ...]
    published: float


@dataclass(frozen=True)
class Table:
    """`columns` name the labels of the rows. A grid is printed with its first label down and its second across."""

    number: int
    title: str
    columns: tuple[str, ...]
    rows: tuple[Recipe | System, ...]
    is_grid: bool = False

    @property
    def recipes(self) -> tuple[Recipe, ...]:
        return tuple(row for row in self.rows if isinstance(row, Recipe))


def marks(inference: Inference) -> tuple[str, ...]:
    """The check marks below `STRATEGY_COLUMNS`."""
    chosen = inference.output_stride == 16, inference.output_stride == 8, len(inference.scales) > 1, inference.flip
    return tuple(YES if yes else NO for yes in chosen)


def dashed(numbers: tuple[int, ...]) -> str:
    return "-".join(map(str, numbers))
