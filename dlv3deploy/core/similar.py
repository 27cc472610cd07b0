"""What a mistyped name was meant to be."""

from __future__ import annotations

from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A remedy such as `did you mean os-8-ms or os-8?` that names at most three of `known`; empty where none is like `name`."""
    import difflib

    *others, last = difflib.get_close_matches(name, list(known), n=3) or [""]
    return f"did you mean {', '.join(others)}{' or ' * bool(others)}{last}?" if last else ""
