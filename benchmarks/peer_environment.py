"""A virtual environment for each peer whose packages do not go with ours, made once in the workspace."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from measured import last_words

from dlv3deploy.core.errors import UserError
from dlv3deploy.core.files import read_json, write_json
from dlv3deploy.core.progress import say

PREPROCESSING = ("numpy", "opencv-python-headless", "pillow")  # what dlv3deploy.core needs to read and feed images
ADDRESS = re.compile(r"\w+://\S+")


class NotInstalled(UserError):
    """A peer cannot be had on this machine."""


@dataclass(frozen=True)
class Environment:
    """`package` is the one whose version the table shows. pip takes packages from where the user has configured it to."""

    package: str
    requirements: tuple[str, ...]


MODELOPT = Environment("nvidia-modelopt", ("nvidia-modelopt[onnx]",))
OPENVINO = Environment("openvino", ("openvino",))


class Peers:
    """The environments below one workspace. What could not be set up is not tried again by the same program."""

    def __init__(self, workspace: Path) -> None:
        self.root = workspace.resolve() / "environments"
        self.refusals: dict[Environment, NotInstalled] = {}

    def python(self, environment: Environment) -> Path:
        """The environment's interpreter, which is set up first if need be. Raises NotInstalled when that fails."""
        if environment in self.refusals:
            raise self.refusals[environment]
        python = self.root / environment.package / "bin" / "python"
        wanted = [*environment.requirements, *PREPROCESSING]
        if self._facts(environment).get("requirements") != wanted:
            say(f"setting up an environment, which takes minutes: {', '.join(environment.requirements)}")
            try:
                write_json(self._file(environment), {"requirements": wanted, "version": _set_up(python, environment, wanted)})
            except NotInstalled as error:
                self.refusals[environment] = error
                raise
        return python

    def version(self, environment: Environment) -> str | None:
        """The version in an environment that has been set up."""
        found = self._facts(environment).get("version")
        return None if found is None else str(found)

    def _facts(self, environment: Environment) -> dict[str, object]:
        return dict(read_json(self._file(environment))) if self._file(environment).is_file() else {}

    def _file(self, environment: Environment) -> Path:
        """Written when all is installed: a set-up that was cut short begins anew."""
        return self.root / environment.package / "ready.json"


def _set_up(python: Path, environment: Environment, wanted: list[str]) -> str:
    """The version that was installed."""
    _run([sys.executable, "-m", "venv", "--clear", str(python.parents[1])])
    _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted])
    asked = f"from importlib.metadata import version; print(version({environment.package!r}))"
    return _run([str(python), "-c", asked]).strip()


def with_our_package() -> dict[str, str]:
    """The environment variables under which another interpreter finds the source of this project, and nothing else of ours."""
    return {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = ADDRESS.sub("the package index", last_words(done.stderr or done.stdout))
        raise NotInstalled("its environment", f"could not be set up: {reason}", "see that pip can install it")
    return done.stdout
