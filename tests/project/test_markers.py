"""What switches a check off: for one rule, and with a reason behind it. (That a rule is named, ruff's PGH sees to.)"""

from __future__ import annotations

import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("dlv3deploy", "train", "calibration", "engines", "benchmarks", "tests")
MODULES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
MARKER = re.compile(r"# (?:type: ignore|noqa)\b")
REASONED = re.compile(r"# (?:type: ignore\[[\w-]+(?:, ?[\w-]+)*\]  # |noqa: [A-Z]+\d+ \()\w")


def unreasoned(text: str) -> list[str]:
    """The comments in a module's text that switch a check off without saying why."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    comments = (token.string for token in tokens if token.type == tokenize.COMMENT)
    return [comment for comment in comments if MARKER.search(comment) and not REASONED.search(comment)]


def test_every_check_that_is_switched_off_says_why() -> None:
    found = {str(path.relative_to(ROOT)): comments for path in MODULES if (comments := unreasoned(path.read_text("utf-8")))}
    assert len(MODULES) > 200
    assert not found


@pytest.mark.parametrize("comment", ["# type: ignore", "# type: ignore[misc]", "# noqa", "# noqa: E402", "# noqa: E402 ()"])
def test_a_marker_without_a_rule_or_a_reason_is_found(comment: str) -> None:
    assert unreasoned(f"x = 1  {comment}\n") == [comment]
    assert not unreasoned(f"x = '{comment}'\n")


@pytest.mark.parametrize("comment", ["# type: ignore[misc]  # chosen at run time", "# noqa: BLE001 (anything may be raised)"])
def test_a_marker_with_both_passes(comment: str) -> None:
    assert not unreasoned(f"x = 1  {comment}\n")
