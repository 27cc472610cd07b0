"""`dlv3deploy paper figure4`: at how many positions of a map a filter's weights are valid, as a table and a picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dlv3deploy.commands.options import LARGEST_SIDE
from dlv3deploy.core.errors import UserError
from dlv3deploy.core.workspace import Workspace

LARGEST_KERNEL = 31
IN_TEXT = (1, 6, 12, 18, 24, 36, 48, 64, 96)  # the paper's rates at output strides 16 and 8, and Figure 4's turning points
LONGEST_NAME = 100  # of the rates in a file's name


@dataclass(frozen=True)
class Settings:
    """A map of `size`×`size`, a filter of `kernel`×`kernel`, ascending atrous rates; by default the paper's."""

    size: int = 65
    kernel: int = 3
    rates: tuple[int, ...] = tuple(range(1, 101))

    def __post_init__(self) -> None:
        if not 1 <= self.size <= LARGEST_SIDE:
            raise UserError(f"--map {self.size}", f"a map has a side of 1 to {LARGEST_SIDE}", "the paper's is --map 65")
        if self.kernel % 2 == 0 or not 1 <= self.kernel <= LARGEST_KERNEL:
            rule = f"a filter with a centre has an odd side, of 1 to {LARGEST_KERNEL}"
            raise UserError(f"--kernel {self.kernel}", rule, "the paper's is --kernel 3")

    @classmethod
    def given(cls, size: int | None, kernel: int | None, rates: str | None) -> Settings:
        """As the options say, the paper's where they are left out. Raises UserError."""
        return cls(
            PAPERS.size if size is None else size,
            PAPERS.kernel if kernel is None else kernel,
            PAPERS.rates if rates is None else parse_rates(rates),
        )

    @property
    def file_name(self) -> str:
        """`figure4.png` for the paper's own; what differs is in the name, as in `figure4-map-33-rates-12-24-36.png`."""
        parts = ["figure4"]
        if self.size != PAPERS.size:
            parts.append(f"map-{self.size}")
        if self.kernel != PAPERS.kernel:
            parts.append(f"kernel-{self.kernel}")
        if self.rates != PAPERS.rates:
            parts.append(f"rates-{_short('-'.join(_runs(self.rates)))}")
        return f"{'-'.join(parts)}.png"


PAPERS = Settings()


def parse_rates(text: str) -> tuple[int, ...]:
    """Atrous rates from `1..100`, `6,12,18` or both, ascending and each once. Raises UserError."""
    found: set[int] = set()
    try:
        for part in text.split(","):
            first, dots, last = part.partition("..")
            low, high = int(first), int(last if dots else first)
            if not 1 <= low <= high <= LARGEST_SIDE:
                raise ValueError(part)
            found.update(range(low, high + 1))
    except ValueError:
        rule = f"is no list of atrous rates from 1 to {LARGEST_SIDE}"
        raise UserError(f"--rates {text!r}", rule, "write it as 1..100 or 6,12,18") from None
    return tuple(sorted(found))


def _runs(rates: Sequence[int]) -> Iterator[str]:
    """`1-to-4`, `8` for 1, 2, 3, 4, 8."""
    first = 0
    for index, rate in enumerate(rates):
        if index + 1 == len(rates) or rates[index + 1] != rate + 1:
            yield f"{rates[first]}-to-{rate}" if index > first else str(rate)
            first = index + 1


def _short(name: str) -> str:
    """A name that a file system takes: the end of a long one is told by its hash."""
    import hashlib

    if len(name) <= LONGEST_NAME:
        return name
    return f"{name[:LONGEST_NAME].rpartition('-')[0]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def show_figure4(chosen: Settings, workspace: Path, json_output: bool, to: Path | None) -> None:
    """Draw the picture, and print the shares that it shows; with JSON it is drawn only where `to` asks for it."""
    import json

    from dlv3deploy.core.dilation import valid_weight_shares
    from dlv3deploy.measure.figure4 import FORMATS, draw_figure4

    path = to or Workspace(workspace).paper / chosen.file_name
    if path.suffix not in FORMATS:
        raise UserError(f"--to {path}", "is no picture that can be drawn", f"end the name in {', '.join(FORMATS)}")

    shares = valid_weight_shares(chosen.size, chosen.kernel, chosen.rates)
    if to is not None or not json_output:
        draw_figure4(path, chosen.size, chosen.kernel, chosen.rates, shares)
    if json_output:
        print(json.dumps({"map": chosen.size, "kernel": chosen.kernel, "rates": chosen.rates, "shares": shares}))
    else:
        _print(path, chosen, shares)


def _print(path: Path, chosen: Settings, shares: dict[int, list[float]]) -> None:
    from rich.table import Table

    from dlv3deploy.commands.tables import print_table

    size, kernel, rates = chosen.size, chosen.kernel, chosen.rates
    title = f"positions of a {size}×{size} map by the valid weights of a {kernel}×{kernel} filter"
    shown = [n for n in shares if kernel <= 3 or n in (1, (kernel // 2 + 1) ** 2, kernel**2)]
    table = Table("rate", *(str(n) for n in shown))
    for column in table.columns:
        column.justify = "right"
    for index in _rows(rates):
        cells = (f"{shares[n][index]:.1%}" if shares[n][index] else "·" for n in shown)
        table.add_row(str(rates[index]), *cells)
    print_table(title, table)
    print(f"drawn to {path}")


def _rows(rates: Sequence[int]) -> list[int]:
    """Which rates the table shows: all of a few, else the paper's and both ends."""
    if len(rates) <= len(IN_TEXT):
        return list(range(len(rates)))
    return [i for i, rate in enumerate(rates) if rate in IN_TEXT or i in (0, len(rates) - 1)]
