"""TensorRT's calibration cache, against lines that TensorRT itself wrote and against bits taken apart by arithmetic."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlv3deploy.calibration.trt_cache import SMALLEST_SCALE, header_version, read_cache, write_cache
from dlv3deploy.core.errors import UserError

# Lines of caches that TensorRT 8.2, 8.5 and 10.3 wrote, as users posted them.
REAL = """TRT-100300-EntropyCalibration2
input_1:0: 3c010a14
conv1/convolution:0: 3d0b7086
onnx::Conv_329: 3c96d93c
/relu1/Relu_output_0: 3fb6163c
(Unnamed Layer* 22) [Constant]_output: 3a4b050c
x: 4000890a
"""

SCALES = st.floats(SMALLEST_SCALE, float(np.finfo(np.float32).max), width=32)
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\n\r"), min_size=1) | st.lists(
    st.sampled_from([": ", ":", " ", "a", "3c010a14", "(Unnamed Layer* 0)", "/conv"]), min_size=1
).map("".join)


def value_of(digits: str) -> float:
    """IEEE 754 by its definition: (−1)^sign · 2^(exponent − 127) · (1 + fraction / 2^23), for normal numbers."""
    bits = int(digits, 16)
    sign, exponent, fraction = bits >> 31, bits >> 23 & 0xFF, bits & 0x7FFFFF
    assert 0 < exponent < 255
    return (-1) ** sign * 2.0 ** (exponent - 127) * (1 + fraction / 2**23)


def test_a_cache_that_tensorrt_wrote_is_read(tmp_path: Path) -> None:
    path = tmp_path / "calibration.cache"
    path.write_text(REAL)
    cache = read_cache(path)
    assert (cache.version, cache.calibrator) == ("100300", "EntropyCalibration2")
    assert list(cache.scales) == [line.rsplit(": ", 1)[0] for line in REAL.splitlines()[1:]]
    assert cache.scales == {line[:-10]: value_of(line[-8:]) for line in REAL.splitlines()[1:]}
    assert cache.scales["input_1:0"] * 127 == pytest.approx(1, rel=1e-3)  # an image of 0 to 1


def test_what_tensorrt_wrote_is_written_again_to_the_letter(tmp_path: Path) -> None:
    path = tmp_path / "calibration.cache"
    path.write_text(REAL)
    write_cache(path, read_cache(path).scales, "EntropyCalibration2", "10.3.0")
    assert path.read_bytes() == REAL.encode()


@settings(deadline=None)
@given(scales=st.dictionaries(NAMES, SCALES, min_size=1, max_size=6))
def test_names_and_scales_come_back_exactly_in_their_order(tmp_path_factory, scales: dict[str, float]) -> None:
    path = tmp_path_factory.mktemp("cache") / "c"
    write_cache(path, scales, "MinMaxCalibration", "8.6.1")
    cache = read_cache(path)
    assert list(cache.scales.items()) == list(scales.items())
    assert (cache.version, cache.calibrator) == ("8601", "MinMaxCalibration")


@settings(deadline=None)
@given(scale=st.floats(1e-30, 1e30))
def test_a_line_holds_the_bits_of_the_nearest_float32(tmp_path_factory, scale: float) -> None:
    path = tmp_path_factory.mktemp("cache") / "c"
    write_cache(path, {"a": scale}, "EntropyCalibration2", "8.6.1")
    digits = path.read_text().splitlines()[1].removeprefix("a: ")
    assert len(digits) == 8
    assert value_of(digits) == pytest.approx(scale, rel=2**-24)


@pytest.mark.parametrize(
    ("version", "number"),
    [("8.6.1", "8601"), ("8.2.5.1", "8205"), ("8.5.2.post1", "8502"), ("10.3.0", "100300"), ("10.16.1.11", "101601")],
)
def test_the_header_has_the_number_of_tensorrts_own_headers(version: str, number: str) -> None:
    assert header_version(version) == number


@pytest.mark.parametrize("version", ["7.1.3", "9.3.0", "11.4.0", "1.7.1", "8.6", "8.6.100", "", "x", "8601"])
def test_a_tensorrt_without_such_caches_is_refused(tmp_path: Path, version: str) -> None:
    with pytest.raises(UserError, match="TensorRT"):
        write_cache(tmp_path / "c", {"a": 1.0}, "EntropyCalibration2", version)
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf"), 1e-40, 1e39])
def test_a_scale_that_no_int8_can_use_is_refused_by_name_and_the_old_file_stays(tmp_path: Path, scale: float) -> None:
    path = tmp_path / "c"
    path.write_text(REAL)
    with pytest.raises(UserError, match="/aspp/x.*positive float32"):
        write_cache(path, {"a": 1.0, "/aspp/x": scale}, "EntropyCalibration2", "8.6.1")
    assert path.read_text() == REAL


@pytest.mark.parametrize("name", ["", "two\nlines", "return\r", "half \ud800"])
def test_a_name_that_no_line_can_hold_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="tensor name"):
        write_cache(tmp_path / "c", {name: 1.0}, "EntropyCalibration2", "8.6.1")


def test_nothing_to_write_and_an_unknown_calibrator_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no scale"):
        write_cache(tmp_path / "c", {}, "EntropyCalibration2", "8.6.1")
    with pytest.raises(UserError, match="EntropyCalibration2 or MinMaxCalibration"):
        write_cache(tmp_path / "c", {"a": 1.0}, "entropy", "8.6.1")  # type: ignore[arg-type]  # on purpose


@pytest.mark.parametrize(
    "text",
    [
        "TRT-8XXX-EntropyCalibration2 \na: 3c010a14",  # TNN's
        "TRT-7103-EntropyCalibration\r\na: 3c010a14\r\n\r\n",
        "TRT-8601-LegacyCalibration\n\na: 3C010A14\n",
    ],
)
def test_what_other_programs_write_is_understood(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c"
    path.write_bytes(text.encode())
    assert read_cache(path).scales == {"a": value_of("3c010a14")}


def test_leading_zeros_may_be_missing(tmp_path: Path) -> None:
    path = tmp_path / "c"
    path.write_text("TRT-8600-EntropyCalibration2\na: d800000\n")
    assert read_cache(path).scales == {"a": value_of("0d800000")}


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "line 1"),
        (b"a: 3c010a14\n", "line 1.*begins like"),
        (b"TRT-8601-EntropyCalibration2\n", "no scale"),
        (b"TRT-8601-EntropyCalibration2\na: 3c010a14\na: 3c010a15\n", "line 3.*second scale of a"),
        (b"TRT-8601-EntropyCalibration2\na: 3c010a14\nb: 3c010a1\xff\n", "no text"),
        (b"TRT-8601-EntropyCalibration2\na: 0.0179\n", "line 2.*hexadecimal"),
        (b"TRT-8601-EntropyCalibration2\na: 3c010a14f\n", "line 2.*hexadecimal"),
        (b"TRT-8601-EntropyCalibration2\na:3c010a14\n", "line 2.*hexadecimal"),
        (b"TRT-8601-EntropyCalibration2\n: 3c010a14\n", "line 2.*hexadecimal"),
        (b"TRT-8601-EntropyCalibration2\na: 7f800000\n", "line 2: a with scale inf.*positive"),
        (b"TRT-8601-EntropyCalibration2\na: 0\n", "line 2: a with scale 0.0.*positive"),
        (b"TRT-8601-EntropyCalibration2\na: bc010a14\n", "line 2: a with scale -0.0.*positive"),
        (b"\x80\x02}q\x00", "no text"),
    ],
)
def test_what_is_no_cache_is_refused_with_its_line(tmp_path: Path, content: bytes, complaint: str) -> None:
    path = tmp_path / "calibration.cache"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"calibration\.cache.*{complaint}"):
        read_cache(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(UserError, match="cannot be read"):
            read_cache(path)


@settings(deadline=None)
@given(content=st.binary(max_size=60) | st.binary(max_size=60).map(lambda tail: b"TRT-8601-EntropyCalibration2\n" + tail))
def test_no_content_gives_anything_but_a_cache_or_a_user_error(tmp_path_factory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("cache") / "c"
    path.write_bytes(content)
    with suppress(UserError):
        assert read_cache(path).scales
