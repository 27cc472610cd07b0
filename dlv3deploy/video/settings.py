"""What stands behind `?` or `#` in an address: KEY=VALUE pairs of known keys, their values checked when it is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl

from dlv3deploy.core.errors import UserError

Settings = Mapping[str, str]


@dataclass(frozen=True)
class Setting:
    """`form` says what is written, `fits` whether a text is that."""

    form: str
    fits: Callable[[str], bool]


def whole(lowest: int, highest: int) -> Setting:
    def fits(text: str) -> bool:
        return text.isdecimal() and lowest <= int(text) <= highest

    return Setting(f"a whole number from {lowest} to {highest}", fits)


def number(above: float, highest: float) -> Setting:
    def fits(text: str) -> bool:
        try:
            return above < float(text) <= highest
        except ValueError:
            return False

    return Setting(f"a number above {above:g}, {highest:g} at most", fits)


def choice(*texts: str) -> Setting:
    return Setting(" or ".join(texts), lambda text: text in texts)


def read_settings(address: str, text: str, known: Mapping[str, Setting]) -> Settings:
    """The pairs in `text`, such as "width=1280&fps=30". Raises UserError naming the address, the pair and what works."""
    works = "; ".join(f"{key}={setting.form}" for key, setting in known.items())
    found: dict[str, str] = {}
    try:
        pairs = parse_qsl(text, keep_blank_values=True, strict_parsing=bool(text))
    except ValueError:
        raise UserError(address, f"{text!r} is no list of KEY=VALUE with & between them", works) from None
    for key, value in pairs:
        if key not in known:
            raise UserError(address, f"there is no setting {key!r}", works)
        if not known[key].fits(value):
            raise UserError(address, f"{key} is {value!r}", works)
        found[key] = value
    return found
