"""Pictures on disk: frames (BGR, uint8, H×W×3) and label maps (class ids, uint8, H×W)."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dlv3deploy.core.classes import Classes
from dlv3deploy.core.errors import UserError
from dlv3deploy.core.files import replacing

if TYPE_CHECKING:
    from PIL import Image

Frame = NDArray[np.uint8]  # H×W×3, blue green red, as OpenCV has it
Mask = NDArray[np.uint8]  # H×W class ids

JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)  # inside pixel data FF stands before 00 and D0 to D7 alone

SOFTWARE = 0x0131  # the Exif tag
JPEG_QUALITY = 92
MOST_FOLDERS = 200  # that are looked into on one level

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}


def read_frame(path: Path) -> Frame:
    """The picture as H×W×3 BGR uint8, whatever it is stored as: grey, alpha and 16-bit files are converted.

    Raises UserError when the file is missing, unreadable or cut short.
    """
    import cv2

    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(str(path), f"cannot be read ({error.strerror})", "check the path") from error
    try:
        frame = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    except cv2.error:
        frame = None
    if (cut := _cut_short(data)) or frame is None:
        rule = "is cut short" if cut else "is not a readable picture"
        raise UserError(str(path), rule, f"supply a whole {', '.join(sorted(IMAGE_SUFFIXES))} file")
    return np.asarray(frame, np.uint8)


def _cut_short(data: bytes) -> bool:
    """Whether a JPEG or PNG lacks its end: OpenCV 4 decodes what is there and paints the rest grey without a word.

    What cameras append after the end (a film, a second picture) does no harm, and the end of a thumbnail is not taken for it.
    """
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return b"IEND" not in data
    if not data.startswith(b"\xff\xd8\xff"):
        return False
    position = 2
    while marker := JPEG_MARKER.search(data, position):
        if marker[0] == b"\xff\xd9":
            return False
        position = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2], "big")  # over the segment
    return True


def read_label(path: Path) -> Mask:
    """The class ids of an 8-bit grey or palette PNG, H×W uint8. Raises UserError for anything else."""
    return _read_png(path, "L", "P1", "class ids", "labels are 8-bit grey or palette PNG files whose values are class ids")


def read_colours(path: Path) -> Frame:
    """The colours of an 8-bit RGB PNG label, H×W×3 uint8, red first. Raises UserError for anything else."""
    return _read_png(path, "RGB", "", "colours", "this data set's labels are 8-bit RGB PNG files")


def _read_png(path: Path, kind_wanted: str, first_letters: str, holds: str, remedy: str) -> NDArray[np.uint8]:
    """The values of a PNG that stores pixels as `kind_wanted`, or as a kind that begins with one of `first_letters`."""
    from PIL import Image, UnidentifiedImageError

    try:
        data = path.read_bytes()
        with Image.open(BytesIO(data), formats=("PNG",)) as image:
            kind = str(image.tile[0][3])  # how pixels are stored: "L;4" has 4 bits, which Pillow would stretch to 8
            if kind != kind_wanted and kind[0] not in first_letters:
                raise UserError(str(path), f"holds {image.mode if kind[0] != 'L' else kind} pixels, not {holds}", remedy)
            image.verify()  # its checksums: decoding alone would return wrong ids from a damaged file
        with Image.open(BytesIO(data)) as image:
            return np.array(image, np.uint8)
    except FileNotFoundError as error:
        raise UserError(str(path), "does not exist", "every image needs a label of the same name") from error
    except UnidentifiedImageError as error:  # whose text names the buffer in memory
        raise UserError(str(path), "is no whole PNG file", remedy) from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(str(path), f"is not a readable label ({error})", "supply a whole PNG file") from error


def check_label(label: Mask, classes: Classes, path: Path) -> None:
    """Raise UserError when `label` holds an id that is neither a class nor ignored."""
    present = np.flatnonzero(np.bincount(label.ravel(), minlength=256))
    strange = [int(i) for i in present if i >= len(classes) and i != classes.ignore_index]
    if strange:
        raise UserError(
            f"{path} holds label id{'s' * (len(strange) > 1)} {', '.join(map(str, strange[:8]))}",
            f"ids are 0 to {len(classes) - 1}, or {classes.ignore_index} for ignored",
            "mend the labels, or give --classes or --ignore-index that match them",
        )


def write_mask(path: Path, mask: Mask, classes: Classes, made_by: str = "dlv3deploy") -> None:
    """Write class ids as an indexed PNG in the classes' colours: values are ids, and viewers show colours.

    `made_by` goes into the file's Software entry, where `picture_made_by` finds it.
    """
    from PIL import Image

    image = Image.fromarray(mask)
    colours = [channel for colour in classes.palette for channel in colour]
    image.putpalette(colours + [0] * (3 * 256 - len(colours)))  # a shorter palette would cut ids to fewer bits
    _save(image, path, made_by)


def write_picture(path: Path, frame: Frame, made_by: str) -> None:
    """Write a BGR picture as `.png` or `.jpg`, `made_by` in its Software entry."""
    from PIL import Image

    _save(Image.fromarray(np.ascontiguousarray(frame[:, :, ::-1])), path, made_by)


def _save(image: Image.Image, path: Path, made_by: str) -> None:
    from PIL.Image import Exif
    from PIL.PngImagePlugin import PngInfo

    with replacing(path) as partial:
        if path.suffix.lower() == ".png":
            facts = PngInfo()
            facts.add_text("Software", made_by)
            image.save(partial, format="PNG", pnginfo=facts)
        else:
            exif = Exif()
            exif[SOFTWARE] = made_by
            image.save(partial, format="JPEG", quality=JPEG_QUALITY, exif=exif)


def picture_made_by(path: Path) -> str | None:
    """What a PNG or JPEG file says made it, or None where it says nothing or is neither."""
    from PIL import Image, PngImagePlugin

    try:
        with Image.open(path) as image:
            found = (
                image.text if isinstance(image, PngImagePlugin.PngImageFile) else {"Software": image.getexif().get(SOFTWARE)}
            )
            return found.get("Software")
    except (OSError, SyntaxError, ValueError):
        return None


def write_frame(path: Path, frame: Frame) -> None:
    """Write a BGR picture in the format that `path`'s suffix names."""
    import cv2

    try:
        done, data = cv2.imencode(path.suffix, frame)
    except cv2.error:
        done = False
    if not done:
        raise UserError(str(path), f"cannot be encoded as {path.suffix or 'a file without suffix'}", "use .png or .jpg")
    with replacing(path) as partial:
        partial.write_bytes(data.tobytes())


def colours_of(classes: Classes) -> NDArray[np.uint8]:
    """The palette as a 256×3 BGR table; ids without a class are black."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(classes)] = np.array(classes.palette, np.uint8)[:, ::-1]
    return table


def list_images(folder: Path) -> list[Path]:
    """The pictures of a folder, sorted by name, hidden files left out."""
    found = (p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith("."))
    return sorted(p for p in found if p.is_file())


def folder_of_images(root: Path) -> Path | None:
    """The first folder below `root`, three levels down at most, that holds pictures: what a data set's folder stands for."""
    level = [root]
    for _ in range(3):
        level = [inner for folder in level for inner in _folders_in(folder)][:MOST_FOLDERS]
        for folder in level:
            with suppress(OSError):  # one that may not be read
                if list_images(folder):
                    return folder
    return None


def _folders_in(folder: Path) -> list[Path]:
    """Sorted, hidden ones left out; none where the folder may not be read."""
    with suppress(OSError), os.scandir(folder) as entries:
        return sorted(Path(entry.path) for entry in entries if not entry.name.startswith(".") and entry.is_dir())
    return []
