"""`dlv3deploy inspect --rewrites`: what is changed, what it saves, and that it is the same function."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from dlv3deploy.cli import app

pytest.importorskip("onnxruntime")


def inspect(work: Path, *arguments: object) -> Result:
    words = ["inspect", "--workspace", work, *arguments]
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "160"})


def test_changes_their_work_and_the_certificate_are_told(work: Path) -> None:
    """The tiny model: rate 6 on 16×24 does not reach half of the map, image pooling is folded."""
    plain = json.loads(inspect(work, "--json").stdout)
    facts = json.loads(inspect(work, "--rewrites", "--json").stdout)
    assert plain["rewrites"] is None
    (change,) = facts["rewrites"]["changes"]
    assert (change["node"], change["rewrite"]) == ("projection", "image pooling folded")
    positions = 16 * 24
    assert change["macs_before"] == 8 * 18 * positions
    assert change["macs_after"] == 8 * 12 * positions + 8 * 6
    assert facts["rewrites"]["macs_before"] == plain["macs"]
    assert facts["rewrites"]["macs_before"] - facts["rewrites"]["macs_after"] == change["macs_before"] - change["macs_after"]
    assert facts["rewrites"]["by_default"] == ["image pooling folded"]
    assert facts["rewrites"]["macs_after_by_default"] == facts["rewrites"]["macs_after"]
    certificate = facts["rewrites"]["certificate"]
    assert certificate["is_exact"] and certificate["inputs"] == 2 and certificate["agreement"] == 1


def test_a_table_has_a_line_for_each_change(work: Path) -> None:
    shown = inspect(work, "--rewrites")
    assert shown.exit_code == 0, shown.output
    assert "image pooling folded: 6 channels fewer" in shown.stdout
    assert "certificate: on 2 inputs of noise" in shown.stdout
    assert "by default TensorRT's engines have image pooling folded: 0.0" in shown.stdout


def test_pictures_of_one_s_own_prove_it_too(work: Path, data: Path) -> None:
    images = data / "train" / "images"
    facts = json.loads(inspect(work, "--rewrites", "--images", images, "--json").stdout)
    assert facts["rewrites"]["certificate"]["inputs"] == 6 and facts["rewrites"]["certificate"]["pictures"] == 4
    assert facts["rewrites"]["certificate"]["is_exact"]
    assert "on 2 inputs of noise and 4 pictures" in inspect(work, "--rewrites", "--images", images).stdout
    for arguments, says in (
        (("--images", images), "--images: is what rewrites are proved on; add --rewrites"),
        (("--rewrites", "--images", work / "nothing"), "there is no picture in it"),
    ):
        refused = inspect(work, *arguments)
        assert refused.exit_code == 1 and says in refused.stderr


def test_rewrites_that_change_results_are_no_success(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dlv3deploy.engines.rewrites.certificate.TOLERANCE", -1.0)
    done = inspect(work, "--rewrites")
    assert done.exit_code == 3 and "NOT PROVED: no engine is built with these rewrites" in done.stdout
    assert "outputs change with the rewrites; build with --rewrites none" in done.stderr


def test_it_is_about_graphs(work: Path) -> None:
    (work / "model.safetensors").write_bytes(b"some weights")
    refused = inspect(work, work / "model.safetensors", "--rewrites")
    assert refused.exit_code == 1 and "--rewrites with" in refused.stderr
