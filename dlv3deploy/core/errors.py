"""What goes wrong, and how the command line ends because of it.

Dlv3Error
├── UserError        exit 1: the input or the request cannot be served
└── CheckFailed      exit 3: everything ran, and a check did not hold
    └── StaleArtefact        the artefact was made from, or for, something else
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Dlv3Error(Exception):
    """Base of every error that is shown as one line instead of a traceback."""

    exit_code = 1

    def __reduce__(self) -> tuple[Callable[..., Dlv3Error], tuple[Any, ...]]:
        """Pickled with its text and fields, whatever its constructor takes: worker processes send it to the main one."""
        return _restored, (type(self), self.args, vars(self))


def _restored(kind: type[Dlv3Error], arguments: tuple[Any, ...], fields: dict[str, Any]) -> Dlv3Error:
    error = kind.__new__(kind, *arguments)
    vars(error).update(fields)
    return error


class UserError(Dlv3Error):
    """The request cannot be served: says what was given, the rule that it breaks and what would work."""

    def __init__(self, given: str, rule: str, remedy: str) -> None:
        self.given, self.rule, self.remedy = given, rule, remedy
        super().__init__(f"{given}: {rule}; {remedy}")


class CheckFailed(Dlv3Error):
    """A result is there, and it is not good enough: a parity check, an accuracy gate."""

    exit_code = 3


class StaleArtefact(CheckFailed):
    """What an artefact was made from or for has changed since: `field` was `found` then, and is `expected` now."""

    def __init__(self, artefact: str, field: str, found: object, expected: object, remedy: str) -> None:
        self.artefact, self.field, self.found, self.expected, self.remedy = artefact, field, found, expected, remedy
        super().__init__(f"{artefact} is stale: {field} was {found} when it was made and is {expected} now; {remedy}")
