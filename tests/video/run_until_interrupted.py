"""Record an endless source into argv[1], say when ten frames were worked on, and print the facts after Ctrl-C."""

import json
import sys
from dataclasses import asdict

from video_stand_ins import CLASSES, ScriptedSource, brightness_segmenter

from dlv3deploy.video import Overlay, open_sink, run_pipeline


def announce(frames: int, dropped: int, inference_ms: float) -> None:
    if frames == 10:
        print("10 frames", flush=True)


source = ScriptedSource(frames=10**9, every_s=0.002, live=False)
sink = open_sink(sys.argv[1], CLASSES, source)
facts = run_pipeline(source, brightness_segmenter(), sink, Overlay(CLASSES), on_frame=announce)
print(json.dumps(asdict(facts)))
