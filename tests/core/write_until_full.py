"""Replace argv[1] in several ways under the kernel's limit on file sizes; print one JSON object, way → error message."""

import json
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from dlv3deploy.core.classes import VOC
from dlv3deploy.core.errors import UserError
from dlv3deploy.core.files import replacing, write_bytes, write_text
from dlv3deploy.core.images import write_frame, write_mask

LIMIT_BYTES = 50_000

noise = np.random.default_rng(0).integers(0, 256, (400, 400, 3), np.uint8)
path = Path(sys.argv[1])


def hidden() -> None:
    """As torch.save does: the system's error is swallowed, another is raised."""
    with replacing(path) as partial:
        try:
            partial.write_bytes(noise.tobytes())
        except OSError:
            raise RuntimeError("unexpected pos 704 vs 598") from None


def safetensors() -> None:
    with replacing(path) as partial:
        save_file({"weight": noise}, str(partial))


WAYS: dict[str, Callable[[], None]] = {
    "bytes": lambda: write_bytes(path, noise.tobytes()),
    "text": lambda: write_text(path, "x" * 100_000),
    "mask": lambda: write_mask(path, noise[:, :, 0], VOC),
    "frame": lambda: write_frame(path, noise),
    "safetensors": safetensors,
    "hidden": hidden,
}

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that the write fails with EFBIG, as it would with ENOSPC
resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT_BYTES, LIMIT_BYTES))
messages = {}
for way, write in WAYS.items():
    try:
        write()
    except UserError as error:
        messages[way] = str(error)
print(json.dumps(messages))
