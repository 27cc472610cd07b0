"""TrainingPlan: the learning rate over the steps, settings that cannot work, and what must stay the same to resume."""

from __future__ import annotations

import copy
import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import command_line
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_runs import SMALL, small_plan

from dlv3deploy.core.classes import CAMVID, VOC
from dlv3deploy.core.errors import UserError
from dlv3deploy.core.spec import InputSpec
from dlv3deploy.train.loss_choice import LossChoice
from dlv3deploy.train.plan import NO_OPTIONS

HERE = Path("data")


def test_the_poly_rate_starts_whole_and_ends_at_nothing() -> None:
    plan = small_plan(HERE, steps=1000, learning_rate=0.007)
    assert plan.rate_at(0) == 0.007
    assert plan.rate_at(500) == pytest.approx(0.007 * 0.5**0.9)
    assert 0 < plan.rate_at(999) < 0.007 / 400
    assert plan.rate_at(1000) == 0


@given(st.integers(1, 5000), st.floats(0.0, 4.0))
def test_the_poly_rate_never_rises(steps: int, power: float) -> None:
    plan = small_plan(HERE, steps=steps, poly_power=power)
    rates = [plan.rate_at(step) for step in range(0, steps, max(1, steps // 50))]
    assert all(a >= b > 0 for a, b in zip(rates, rates[1:], strict=False))


def test_sgds_default_is_the_papers_for_a_batch_of_16_and_grows_with_the_batch() -> None:
    assert small_plan(HERE, optimiser="sgd", batch_size=16).initial_rate == 0.007
    assert small_plan(HERE, optimiser="sgd", batch_size=4).initial_rate == pytest.approx(0.007 / 4)


def test_adamws_default_grows_with_the_batchs_square_root() -> None:
    large, small = (small_plan(HERE, batch_size=n).initial_rate for n in (16, 4))
    assert large == pytest.approx(2 * small)


INVALID: list[tuple[dict[str, Any], str]] = [
    ({"batch_size": 1}, "batch norm needs at least 2"),
    ({"batch_size": -4}, "batch norm"),
    ({"steps": 0}, "1 or more"),
    ({"validate_every": 0}, "1 or more"),
    ({"scale": (2.0, 0.5)}, "no range"),
    ({"scale": (0.0, 1.0)}, "no range"),
    ({"scale": (-1.0, 1.0)}, "no range"),
    ({"scale": (math.nan, 1.0)}, "no range"),
    ({"scale": (0.5, math.inf)}, "no range"),
    ({"scale": (50.0, 200.0)}, "no range"),
    ({"learning_rate": 0.0}, "above 0"),
    ({"learning_rate": -1.0}, "above 0"),
    ({"learning_rate": math.nan}, "above 0"),
    ({"learning_rate": math.inf}, "above 0"),
    ({"weight_decay": -1e-4}, "weight decay -0.0001"),
    ({"weight_decay": math.nan}, "weight decay nan"),
    ({"poly_power": -1.0}, "poly power"),
    ({"batch_size": 6, "accumulate": 4}, "at least 2 images in each pass"),
    ({"batch_size": 3, "accumulate": 4, "frozen_batch_norm": True}, "each pass needs one"),
    ({"accumulate": 0}, "1 or more"),
    ({"dropout": 1.0}, "dropout 1.0"),
    ({"dropout": math.nan}, "dropout"),
    ({"ema_decay": 1.0}, "EMA decay"),
    ({"ema_decay": math.nan}, "EMA decay"),
    ({"batch_norm_momentum": 0.0}, "momentum 0.0"),
    ({"frozen_batch_norm": True, "sync_batch_norm": True}, "exclude each other"),
    ({"repeat_classes": ("unicorn",)}, "'unicorn' to repeat: is none of"),
    ({"repeats": 0}, "repeats"),
    ({"backbone_weights": HERE, "start_from": HERE}, "give one of them"),
    ({"crop": (50, 64)}, "height 50"),
    ({"crop": (48, 8)}, "width 8"),
    ({"input": InputSpec(64, 90)}, "width 90"),
    ({"input": InputSpec(64, 96, std=(58.0, 0.0, 57.0))}, "std above 0"),
    ({"input": InputSpec(64, 96, mean=(math.nan, 0.0, 0.0))}, "mean is finite"),
    ({"workers": -1}, "workers"),
    ({"seed": -1}, "seed -1"),
    ({"seed": 1 << 64}, "seed"),
    ({"architecture": replace(SMALL, backbone="vgg16")}, "resnet18"),
    ({"architecture": replace(SMALL, output_stride=0)}, "8, 16, 32"),
    ({"architecture": replace(SMALL, output_stride=4)}, "8, 16, 32"),
    ({"architecture": replace(SMALL, head="deeplabv2", aspp_rates=())}, "6,12,18"),
    ({"architecture": replace(SMALL, aspp_rates=(6, 0))}, "6,12,18"),
    ({"architecture": replace(SMALL, aspp_channels=0)}, "ASPP channels"),
]


@pytest.mark.parametrize(("settings", "says"), INVALID, ids=lambda value: str(value) if isinstance(value, dict) else "")
def test_a_setting_that_cannot_work_is_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        small_plan(HERE, **settings)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"label_smoothing": 1.0}, "label smoothing"),
        ({"label_smoothing": math.nan}, "label smoothing"),
        ({"hard_below": 0.0}, "OHEM threshold 0.0"),
        ({"hard_below": 1.5}, "OHEM threshold 1.5"),
        ({"dice_weight": -1.0}, "Dice weight"),
        ({"auxiliary_weight": math.inf}, "auxiliary weight"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_a_loss_that_cannot_work_is_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        LossChoice(**settings)


DECIDING: list[tuple[str, dict[str, Any]]] = [
    ("backbone", {"architecture": replace(SMALL, backbone="resnet18")}),
    ("output-stride", {"architecture": replace(SMALL, output_stride=8)}),
    ("aspp-rates", {"architecture": replace(SMALL, aspp_rates=(6, 12))}),
    ("aspp-channels", {"architecture": replace(SMALL, aspp_channels=16)}),
    ("auxiliary", {"architecture": replace(SMALL, auxiliary=True)}),
    ("classes", {"classes": VOC}),
    ("ignore-index", {"classes": replace(CAMVID, ignore_index=200)}),
    ("size", {"input": InputSpec(96, 64)}),
    ("mean", {"input": InputSpec(64, 96, mean=(0.0, 0.0, 0.0))}),
    ("std", {"input": InputSpec(64, 96, std=(1.0, 1.0, 1.0))}),
    ("crop", {"crop": (64, 64)}),
    ("scale", {"scale": (1.0, 1.0)}),
    ("flip", {"flip": False}),
    ("steps", {"steps": 13}),
    ("batch-size", {"batch_size": 3}),
    ("optimiser", {"optimiser": "sgd"}),
    ("learning-rate", {"learning_rate": 1.0}),
    ("weight-decay", {"weight_decay": 0.0}),
    ("seed", {"seed": 4}),
    ("ema", {"ema_decay": 0.9}),
    ("freeze-batch-norm", {"frozen_batch_norm": True}),
    ("ohem", {"loss": LossChoice(hard_below=0.7)}),
    ("dice", {"loss": LossChoice(dice_weight=1.0)}),
]


@pytest.mark.parametrize(("option", "settings"), DECIDING, ids=[name for name, _ in DECIDING])
def test_what_decides_the_weights_is_in_the_fingerprint_under_its_options_name(option: str, settings: dict[str, Any]) -> None:
    before, after = small_plan(HERE, classes=CAMVID), small_plan(HERE, **{"classes": CAMVID, **settings})
    assert before.fingerprint()[option] != after.fingerprint()[option]


@pytest.mark.parametrize("part", ["architecture", "loss", "input", ""])
def test_every_field_decides_but_those_that_are_free(part: str) -> None:
    """As it is, whatever fields are added: none is hidden behind another of the same name."""
    free = {"data", "workers", "precision", "compiled", "one_device", "validate_every", "backbone_weights", "start_from"}
    plan = small_plan(HERE, learning_rate=0.1)
    before = plan.fingerprint()
    for field in fields(getattr(plan, part) if part else plan):
        if not part and field.name in free | {"architecture", "loss", "input", "classes"}:
            continue
        other = copy.deepcopy(plan)
        owner = getattr(other, part) if part else other
        object.__setattr__(owner, field.name, another(getattr(owner, field.name)))  # past what would not go together
        assert other.fingerprint() != before, field.name


def another(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    return 5 if value is None else value * 2 or (value + type(value)((1,)) if isinstance(value, tuple) else 1)


def test_a_setting_has_its_options_name_or_is_known_to_have_none() -> None:
    known = {text.removeprefix("--") for text in command_line.options("train")}
    named = set(small_plan(HERE).fingerprint())
    assert named - known == NO_OPTIONS - known == NO_OPTIONS


def test_what_does_not_decide_the_weights_is_not_in_the_fingerprint() -> None:
    moved = small_plan(Path("/elsewhere"), workers=4, backbone_weights=Path("x.pth"), validate_every=5, precision="auto")
    assert moved.fingerprint() == small_plan(HERE).fingerprint()


def test_the_default_learning_rate_said_aloud_is_the_same_run() -> None:
    plan = small_plan(HERE)
    assert replace(plan, learning_rate=plan.initial_rate).fingerprint() == plan.fingerprint()
