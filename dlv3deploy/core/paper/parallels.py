"""Tables 5 to 7 of the paper (section 4.3): ASPP, how the best of it is inferred, and what others reached."""

from __future__ import annotations

from dataclasses import replace

from dlv3deploy.core.datasets import HARD_CLASSES
from dlv3deploy.core.paper.recipe import Inference, Recipe, Stage, UnitRates
from dlv3deploy.core.paper.table import NO, STRATEGIES, STRATEGY_COLUMNS, YES, System, Table, dashed, marks
from dlv3deploy.core.spec import Architecture

NO_COCO_SCHEDULE = "the paper gives no schedule for COCO; that of trainaug is taken"


def aspp(grid: UnitRates, rates: tuple[int, ...] = (6, 12, 18), pooling: bool = False) -> Stage:
    """Section 3.3: ASPP with batch normalisation on ResNet-101, at output stride 16."""
    return Stage(
        Architecture("resnet101", 16, aspp_rates=rates, multi_grid=grid, image_pooling=pooling, final_convolution=False)
    )


BEST = aspp((1, 2, 4), pooling=True)
COCO = replace(BEST, data="coco-voc")
AFTER_COCO = replace(BEST, learning_rate=0.0001)
FOR_THE_TEST_SET = replace(
    BEST,
    architecture=BEST.architecture.at_output_stride(8),
    data="voc-trainval",
    learning_rate=0.001,
    frozen_batch_norm=True,
    repeat_classes=HARD_CLASSES,
)


def _table5() -> tuple[Recipe, ...]:
    three, four = (6, 12, 18), (6, 12, 18, 24)
    published: tuple[tuple[UnitRates, tuple[int, ...], bool, float], ...] = (
        ((1, 1, 1), three, False, 75.36),
        ((1, 2, 1), three, False, 75.93),
        ((1, 2, 4), three, False, 76.58),
        ((1, 2, 4), four, False, 76.46),
        ((1, 2, 4), three, True, 77.21),
    )
    return tuple(
        Recipe(
            name=f"table5/mg-{dashed(grid)}-aspp-{dashed(rates)}{'-pooling' * pooling}",
            labels=(str(grid), str(rates), YES if pooling else NO),
            stages=(aspp(grid, rates, pooling),),
            inference=Inference(16),
            published=miou,
        )
        for grid, rates, pooling, miou in published
    )


def _table6() -> tuple[Recipe, ...]:
    published = (77.21, 78.51, 79.45, 79.77)
    without_coco = (
        Recipe(f"table6/{inference.name}", (*marks(inference), NO), (BEST,), inference, miou)
        for inference, miou in zip(STRATEGIES, published, strict=True)
    )
    last = STRATEGIES[-1]
    with_coco = Recipe(
        f"table6/{last.name}-coco", (*marks(last), YES), (COCO, AFTER_COCO), last, published=82.70, note=NO_COCO_SCHEDULE
    )
    return (*without_coco, with_coco)


def _table7() -> tuple[Recipe | System, ...]:
    others = {
        "Adelaide_VeryDeep_FCN_VOC": 79.1,
        "LRR_4x_ResNet-CRF": 79.3,
        "DeepLabv2-CRF": 79.7,
        "CentraleSupelec Deep G-CRF": 80.2,
        "HikSeg_COCO": 81.4,
        "SegModel": 81.8,
        "Deep Layer Cascade (LC)": 82.7,
        "TuSimple": 83.1,
        "Large_Kernel_Matters": 83.6,
        "Multipath-RefineNet": 84.2,
        "ResNet-38_MS_COCO": 84.9,
        "PSPNet": 85.4,
        "IDW-CNN": 86.3,
        "CASIA_IVA_SDN": 86.6,
        "DIS": 86.8,
    }
    own = Recipe(
        "table7/deeplabv3",
        ("DeepLabv3",),
        (COCO, AFTER_COCO, FOR_THE_TEST_SET),
        STRATEGIES[-1],
        published=85.7,
        measured_on="voc-test",
        note=f"{NO_COCO_SCHEDULE}; section 4.1's learning rate is taken for trainval, although COCO lowers that of trainaug; "
        "the labels of VOC's test set are not public, its server alone can measure this row",
    )
    return (*(System((name,), miou) for name, miou in others.items()), own, System(("DeepLabv3-JFT",), 86.9))


TABLE5 = Table(5, "ASPP at output stride 16", ("Multi-Grid", "ASPP", "Image Pooling"), _table5())
TABLE6 = Table(6, "Inference of MG(1, 2, 4) + ASPP(6, 12, 18) + Image Pooling", (*STRATEGY_COLUMNS, "COCO"), _table6())
TABLE7 = Table(7, "Systems on PASCAL VOC 2012 test", ("Method",), _table7())
