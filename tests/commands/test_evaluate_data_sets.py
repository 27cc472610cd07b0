"""`dlv3deploy evaluate --data`: names of data sets, and splits as their layouts have them."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_datasets as tiny
from typer.testing import CliRunner

from dlv3deploy.cli import app
from dlv3deploy.commands.evaluate import _samples
from dlv3deploy.core.classes import CAMVID, VOC, Classes
from dlv3deploy.core.errors import UserError
from dlv3deploy.core.spec import InputSpec, ModelSpec, OutputSpec


def test_evaluate_finds_a_data_set_by_its_name_and_takes_its_splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLV3DEPLOY_DATA", str(tmp_path))
    tiny.voc(tmp_path / "voc", train=("a", "b"), val=("c",))

    def stems(classes: Classes, split: str | None) -> list[str]:
        return [s.image.stem for s in _samples(ModelSpec(classes, InputSpec(64, 64), OutputSpec("scores")), Path("voc"), split)]

    assert stems(VOC, None) == stems(VOC, "val") == ["c"]
    assert stems(VOC, "train") == ["a", "b"]
    assert stems(VOC, "all") == stems(VOC, "trainval") == ["a", "b", "c"]
    with pytest.raises(UserError, match="the model's classes are Sky"):
        stems(CAMVID, "val")


def test_a_split_that_does_not_exist_is_refused_before_a_model_is_looked_for(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["evaluate", "--workspace", str(tmp_path), "--split", "dev"])
    assert done.exit_code == 1
    assert done.stderr == "error: --split 'dev': is unknown; use one of train, val, trainval, test, all\n"
