"""The recipes of the paper's tables: the printed figures, the sentences about them, and who shares a training with whom."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import pytest

from dlv3deploy.core.classes import read_classes
from dlv3deploy.core.errors import UserError
from dlv3deploy.core.paper import Inference, Recipe, training_name
from dlv3deploy.core.paper.parallels import HARD_CLASSES
from dlv3deploy.core.paper.tables import TABLES, find_recipe
from dlv3deploy.core.spec import InputSpec, ModelSpec, OutputSpec, check_size

# As the text of arXiv 1706.05587v3 has them, row by row.
PRINTED = {
    1: "75.18 73.88 70.06 59.99 42.34 20.29",
    2: "64.81 72.14 74.29 73.88 68.39 73.21 75.34 75.76",
    3: """68.39 73.21 75.34 75.76 70.23 75.67 76.09 76.66 73.14 75.78 75.96 76.11 73.45 75.74 75.85 76.02
          71.45 74.30 74.70 74.62""",
    4: "76.66 78.05 78.93 79.35",
    5: "75.36 75.93 76.58 76.46 77.21",
    6: "77.21 78.51 79.45 79.77 82.70",
    7: "79.1 79.3 79.7 80.2 81.4 81.8 82.7 83.1 83.6 84.2 84.9 85.4 86.3 86.6 86.8 85.7 86.9",
}
PLAIN_16 = Inference(16)


def recipes(*numbers: int) -> Iterator[Recipe]:
    for number in numbers or TABLES:
        yield from TABLES[number].recipes


def published(name: str) -> float:
    return next(r.published for r in recipes() if r.name == name)


@pytest.mark.parametrize("number", PRINTED)
def test_every_figure_is_the_printed_one(number: int) -> None:
    table = TABLES[number]
    assert table.number == number
    assert [row.published for row in table.rows] == [float(figure) for figure in PRINTED[number].split()]
    assert {len(row.labels) for row in table.rows} == {len(table.columns)}
    assert len({row.labels for row in table.rows}) == len(table.rows)


def test_the_sentences_about_the_figures_hold() -> None:
    """Sections 4.2 and 4.3 state these differences in words."""
    assert published("table4/os-8") - published("table4/os-16") == pytest.approx(1.39)
    assert published("table6/os-8") - published("table6/os-16") == pytest.approx(1.3)
    assert published("table6/os-8-ms") - published("table6/os-8") == pytest.approx(0.94)
    assert published("table6/os-8-ms-flip") - published("table6/os-8-ms") == pytest.approx(0.32)
    four, three = published("table5/mg-1-2-4-aspp-6-12-18-24"), published("table5/mg-1-2-4-aspp-6-12-18")
    assert three - four == pytest.approx(0.12)
    assert published("table2/resnet50-block7") < published("table2/resnet50-block6")
    assert max(recipes(3), key=lambda r: r.published).name == "table3/block7-mg-1-2-1"
    assert published("table6/os-8-ms-flip-coco") == 82.7


def test_names_are_unique_and_begin_with_their_table() -> None:
    names = [r.name for r in recipes()]
    assert len(set(names)) == len(names) == 49
    assert all(r.name.startswith(f"table{table.number}/") for table in TABLES.values() for r in table.recipes)


def test_a_training_has_one_name_and_no_name_has_two_trainings() -> None:
    for one, other in combinations(recipes(), 2):
        assert (one.training_name == other.training_name) == (one.stages == other.stages), (one.name, other.name)


def test_tables_1_to_6_need_35_trainings() -> None:
    """Six strides; three and four depths of two networks; four more multi-grids of each depth; five ASPPs; one after COCO."""
    assert len({r.training_name for r in recipes(*range(1, 7))}) == 6 + 3 + 4 + 4 * 4 + 5 + 1


def test_figures_that_the_paper_prints_twice_are_one_measurement() -> None:
    measured: dict[tuple[str, Inference], set[float]] = {}
    for recipe in recipes(*range(1, 7)):
        measured.setdefault((recipe.training_name, recipe.inference), set()).add(recipe.published)
    assert all(len(figures) == 1 for figures in measured.values())
    assert len(measured) == 48 - 1 - 4 - 1 - 1  # 1 in 2, ResNet-101's row of 2 in 3, 3 in 4, 5 in 6


@pytest.mark.parametrize(("number", "trainings"), [(4, 1), (6, 2)])
def test_other_inference_needs_no_other_training(number: int, trainings: int) -> None:
    assert len({r.training_name for r in recipes(number)}) == trainings
    assert {r.stages[-1].architecture.output_stride for r in recipes(number)} == {16}
    assert [r.inference.output_stride for r in recipes(number)][:2] == [16, 8]
    assert all(r.inference.scales == (0.5, 0.75, 1, 1.25, 1.5, 1.75) for r in recipes(number) if "-ms" in r.name)
    assert all(r.inference.flip == r.name.removesuffix("-coco").endswith("flip") for r in recipes(number))


def test_table_1_trains_and_evaluates_at_the_stride_of_its_column() -> None:
    for recipe in recipes(1):
        stride = int(recipe.labels[1])
        assert recipe.stages[0].architecture.output_stride == recipe.inference.output_stride == stride
        assert (recipe.stages[0].architecture.backbone, recipe.stages[0].architecture.blocks) == ("resnet50", 7)


def test_tables_2_3_and_5_train_and_evaluate_at_stride_16() -> None:
    for recipe in recipes(2, 3, 5):
        assert recipe.inference == PLAIN_16
        assert [s.architecture.output_stride for s in recipe.stages] == [16]


def test_labels_say_what_is_trained() -> None:
    for recipe in recipes(3):
        network = recipe.stages[0].architecture
        assert recipe.labels == (str(network.multi_grid), f"block{network.blocks}")
        assert (network.backbone, network.head) == ("resnet101", "cascade")
    for recipe in recipes(5):
        network = recipe.stages[0].architecture
        assert recipe.labels == (str(network.multi_grid), str(network.aspp_rates), "✓" * network.image_pooling)
        assert (network.head, network.blocks, network.final_convolution) == ("aspp", 4, False)


def test_the_protocol_of_section_4_1() -> None:
    for recipe in recipes(*range(1, 7)):
        last = recipe.stages[-1]
        assert (last.data, last.crop, last.batch_size, last.steps, last.poly_power) == ("voc-trainaug", 513, 16, 30_000, 0.9)
        assert not last.frozen_batch_norm
        assert 1 - last.batch_norm_momentum == pytest.approx(0.9997)
        assert last.learning_rate == (0.0001 if recipe.name.endswith("-coco") else 0.007)
        assert (last.scale, last.flip, last.repeat_classes) == ((0.5, 2.0), True, ())


def test_the_model_for_the_test_set_goes_on_from_the_best_of_table_6() -> None:
    (recipe,) = recipes(7)
    best = TABLES[6].recipes[-1]
    assert [s.data for s in recipe.stages] == ["coco-voc", "voc-trainaug", "voc-trainval"]
    assert training_name(recipe.stages[:2]) == best.training_name
    last = recipe.stages[-1]
    assert (last.learning_rate, last.steps, last.frozen_batch_norm) == (0.001, 30_000, True)
    assert (last.architecture.output_stride, last.architecture.aspp_rates) == (8, (12, 24, 36))
    assert last.repeat_classes == HARD_CLASSES
    assert recipe.measured_on == "voc-test"


def test_the_hard_classes_are_classes_of_voc() -> None:
    assert set(HARD_CLASSES) < set(read_classes("voc").names)


def test_every_network_can_be_described_in_a_file_and_takes_its_crop() -> None:
    for recipe in recipes():
        for stage in recipe.stages:
            spec = ModelSpec(read_classes("voc"), InputSpec(513, 513), OutputSpec("scores"), stage.architecture)
            assert ModelSpec.from_text(spec.to_text(), "here") == spec
            check_size(stage.crop, stage.crop, stage.architecture.output_stride)


def test_a_row_is_found_with_and_without_its_table() -> None:
    for table in TABLES.values():
        for recipe in table.recipes:
            assert find_recipe(table, recipe.name) is find_recipe(table, recipe.name.split("/")[1]) is recipe


@pytest.mark.parametrize("name", ["", "nonsense", "table4/os-8", "os-8"])
def test_a_row_like_none_that_is_there_is_answered_with_all_that_are(name: str) -> None:
    with pytest.raises(UserError, match="no recipe of table 3") as refusal:
        find_recipe(TABLES[3], name)
    assert refusal.value.remedy == "there is " + ", ".join(recipe.name.split("/")[1] for recipe in TABLES[3].recipes)


@pytest.mark.parametrize("name", ["block7-mg-1-2-1 ", "block7_mg_1_2_1", "table5/block7-mg-121"])
def test_a_mistyped_row_is_answered_with_the_one_that_is_meant(name: str) -> None:
    with pytest.raises(UserError, match="did you mean block7-mg-1-2-1"):
        find_recipe(TABLES[3], name)
