"""Write noise into the sink argv[1] until the kernel's limit on file sizes ends it; print the error and exit 1.

With "killed" behind it there is no limit, and the process kills itself when everything is written but nothing closed; with
"quiet" the pictures are grey, of which FFmpeg hands on none, and the recording may be held back no time.
"""

import os
import resource
import signal
import sys

import numpy as np
from video_stand_ins import CLASSES, ScriptedSource, grey_frame, result_of

from dlv3deploy.core.errors import UserError
from dlv3deploy.video import growing, open_sink

LIMIT_BYTES = 50_000

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that the write fails with EFBIG, as it would with ENOSPC
is_quiet = sys.argv[2:] == ["quiet"]
is_killed = is_quiet or sys.argv[2:] == ["killed"]
if is_quiet:
    growing.LEAST_HELD_S = growing.MOST_HELD_S = 0.0
if not is_killed:
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT_BYTES, LIMIT_BYTES))
noise = np.random.default_rng(0)
try:
    with open_sink(sys.argv[1], CLASSES, ScriptedSource(frames=0, live=False)) as sink:
        for i in range(40):
            frame = grey_frame(5 * i) if is_quiet else noise.integers(0, 256, (480, 640, 3), np.uint8)
            sink.write(result_of(i, frame, mask=frame[:, :, 0] % 3 * (not is_quiet)))
        if is_killed:
            os.kill(os.getpid(), signal.SIGKILL)
except UserError as error:
    print(error)
    sys.exit(1)
