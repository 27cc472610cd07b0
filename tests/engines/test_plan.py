"""A compiled plan's figures, what changed between two, and the least time of one, against numbers worked out by hand."""

from __future__ import annotations

import pytest

from dlv3deploy.core.errors import UserError
from dlv3deploy.engines.plans.devices import DEVICES, Device, device_named
from dlv3deploy.engines.plans.difference import BEGINNING, changes
from dlv3deploy.engines.plans.plan import Kernel, Plan, Tensor
from dlv3deploy.engines.plans.roofline import estimate_kernel, estimate_ms

MAP, HALF, SUMS = Tensor("x", (1, 8, 4, 6), "Float"), Tensor("h", (1, 8, 4, 6), "Half"), Tensor("y", (1, 16, 4, 6), "Float")
FILTERS, BIAS = Tensor("w", (16, 8, 3, 3), "Float"), Tensor("b", (1, 16, 1, 1), "Float")
CONVOLUTION = Kernel("conv", "correlation", (MAP,), (BIAS, FILTERS), (SUMS,), ("conv", "relu"))
CAST = Kernel("cast", "kgen", (MAP,), (), (HALF,), ())
PLAIN = Device("plain", "8.9", 2, 1.0, 8.0, {"Float": 5, "Half": 100})


def kernel(name: str, *nodes: str, writes: Tensor = SUMS) -> Kernel:
    return Kernel(name, "correlation", (MAP,), (FILTERS,), (writes,), nodes)


def test_a_convolution_takes_every_number_of_its_filters_at_every_position() -> None:
    assert CONVOLUTION.macs == 16 * 8 * 9 * 4 * 6
    batch = Kernel("conv", "CaskConvolution", (MAP,), (FILTERS,), (Tensor("y", (3, 16, 4, 6), "Float"),), ())
    assert batch.macs == 3 * 16 * 8 * 9 * 4 * 6
    assert CAST.macs == 0 and not CAST.is_convolution


def test_a_convolution_that_became_a_product_of_matrices_is_one_still() -> None:
    operands = ((Tensor("x", (1, 960, 690), "Half"),), (Tensor("w", (1, 320, 960), "Half"), Tensor("b", (1, 320, 1), "Half")))
    sums = (Tensor("y", (1, 320, 690), "Half"),)
    product = Kernel("fc", "runtime_fusion", *operands, sums, ("conv",), "__gemm_from_conv1x1")
    assert product.is_convolution and product.macs == 320 * 960 * 690
    assert not Kernel("fc", "runtime_fusion", *operands, sums, ("add",)).is_convolution


@pytest.mark.parametrize(
    ("kind", "is_one"),
    [
        *((kind, True) for kind in ("CaskConvolution", "CaskGemmConvolution", "CaskJitConv", "FusedConvActConvolution")),
        *((kind, False) for kind in ("CaskDeconvolution", "Reformat", "CaskPooling", "kgen")),
    ],
)
def test_convolutions_are_known_by_tensorrts_names(kind: str, is_one: bool) -> None:
    assert Kernel("k", kind, (MAP,), (FILTERS,), (SUMS,), ()).is_convolution == is_one


def test_a_convolution_without_stored_filters_is_counted_with_no_work() -> None:
    assert Kernel("conv", "correlation", (MAP,), (), (SUMS,), ()).macs == 0


def test_figures_are_sums_over_kernels() -> None:
    plan = Plan((CAST, CONVOLUTION))
    moved = 192 * (4 + 2) + 192 * 4 + 384 * 4
    assert plan.figures() == {"convolutions": 1, "others": 1, "bytes_moved": moved, "macs": CONVOLUTION.macs}


def test_the_least_time_is_by_memory_or_by_products_whichever_is_longer() -> None:
    cast, convolution = estimate_kernel(CAST, PLAIN), estimate_kernel(CONVOLUTION, PLAIN)
    assert cast.bound == "memory" and cast.ms == pytest.approx(192 * 6 / 8e9 * 1e3)
    assert convolution.bound == "products" and convolution.ms == pytest.approx(27648 / (2 * 1e9 * 5) * 1e3)
    assert estimate_ms(Plan((CAST, CONVOLUTION)), PLAIN) == pytest.approx(cast.ms + convolution.ms)


def test_weights_are_read_too_and_products_run_at_their_types_rate() -> None:
    half = Kernel("conv", "correlation", (MAP,), (Tensor("w", (16, 8, 3, 3), "Half"),), (SUMS,), ())
    estimate = estimate_kernel(half, PLAIN)
    assert estimate.bound == "memory" and estimate.ms == pytest.approx((192 * 4 + 384 * 4 + 1152 * 2) / 8e9 * 1e3)
    assert PLAIN.macs_per_s("Int8") == PLAIN.macs_per_s("Float")


@pytest.mark.parametrize(
    ("name", "kind", "published"),
    [("agx-orin", "Int8", 85e12), ("rtx4090", "Int8", 660.6e12), ("rtx4090", "Half", 165.2e12), ("xavier", "Half", 11e12)],
)
def test_peaks_are_those_in_data_sheets(name: str, kind: str, published: float) -> None:
    assert 2 * DEVICES[name].macs_per_s(kind) == pytest.approx(published, rel=0.03)


def test_devices_are_found_however_they_are_written() -> None:
    assert device_named("Orin Nano") is device_named("orin_nano") is DEVICES["orin-nano"]
    assert device_named("GeForce RTX 4090") is DEVICES["rtx4090"]
    with pytest.raises(UserError, match="use one of xavier, orin-nano"):
        device_named("gtx1080")


def test_equal_plans_do_not_differ_whatever_their_kernels_are_called() -> None:
    again = Kernel(
        "other name", "correlation", (Tensor("z", (1, 8, 4, 6), "Float"),), (BIAS, FILTERS), (SUMS,), ("conv", "relu")
    )
    assert changes(Plan((CONVOLUTION,)), Plan((again,))) == []


def test_kernels_are_set_beside_each_other_by_the_node_that_they_name_first() -> None:
    first = Plan((kernel("a", "one"), kernel("b", "two", "relu"), kernel("c", "three")))
    quantise = Kernel("q", "kgen", (SUMS,), (), (Tensor("i", (1, 16, 4, 6), "Int8"),), ("two", "two/quantize"))
    second = Plan((kernel("d", "one"), kernel("e", "two", "relu"), quantise, kernel("f", "four")))
    found = {
        change.node: ([k.name for k in change.before], [k.name for k in change.after]) for change in changes(first, second)
    }
    assert found == {"two": (["b"], ["e", "q"]), "three": (["c"], []), "four": ([], ["f"])}


def test_kernels_of_no_node_belong_with_the_one_before() -> None:
    (at_the_beginning,) = changes(Plan((CAST, CONVOLUTION)), Plan((CONVOLUTION,)))
    assert (at_the_beginning.node, at_the_beginning.before) == (BEGINNING, (CAST,))
    (behind,) = changes(Plan((CONVOLUTION,)), Plan((CONVOLUTION, CAST)))
    assert (behind.node, behind.after) == ("conv", (CONVOLUTION, CAST))


def test_another_type_of_what_is_written_is_a_difference() -> None:
    (change,) = changes(Plan((kernel("a", "one"),)), Plan((kernel("a", "one", writes=HALF),)))
    assert change.node == "one"
