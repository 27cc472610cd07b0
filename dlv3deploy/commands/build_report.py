"""What `dlv3deploy build-engine` says of the engine that it made: candidates, latency, INT8 against floating point."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dlv3deploy.engines.manifest import Manifest
    from dlv3deploy.engines.plans.devices import Device


def report_tuning(manifest: Manifest, device: Device | None) -> None:
    """A line for each candidate, the kept one marked; and where the device that it was estimated for runs no such engine."""
    from dlv3deploy.core.progress import say
    from dlv3deploy.engines.dialect import TENSORRT_RTX, load_dialect, runs_on
    from dlv3deploy.engines.rewrites.rewrite import BY_CHANGE

    kept = next(trial for trial in manifest.tuning if trial.is_kept)
    first = manifest.tuning[0]
    for trial in manifest.tuning:
        what = f"{trial.precision.upper()}, {', '.join(trial.rewrites) or 'no rewrites'}"
        what += f", {trial.layout} layout" if trial.layout else ""
        figures = f"{trial.p50_ms:.3f} ms" + (" (estimate)" if trial.is_estimate else f" (90th percentile {trial.p90_ms:.3f})")
        say(f"{'*' if trial.is_kept else ' '} {what}: {figures}, {first.p50_ms / trial.p50_ms:.2f}× as fast as the first")
    if kept is first:
        say("kept the first: no other is faster beyond noise")
    if device is not None and not runs_on(TENSORRT_RTX, load_dialect(TENSORRT_RTX), device.capability):
        rewrites = ",".join(BY_CHANGE[change] for change in kept.rewrites) or "none"
        say(
            f"{TENSORRT_RTX.name} does not run on {device.title}: this engine says what to ask TensorRT for there, "
            f"--{kept.precision} --rewrites {rewrites}"
        )


def report_speed(manifest: Manifest) -> None:
    """Latency where the engine runs here, and a warning when INT8 is no faster than floating point in the same place."""
    from dlv3deploy.core.progress import say
    from dlv3deploy.engines.gpu import find_gpu

    gate, timing = manifest.gate, manifest.timing
    if timing is not None:
        together = f" for {manifest.images} images" if manifest.images > 1 else ""
        say(f"latency {timing.p50_ms:.1f} ms{together} (median of {timing.runs})")
    else:
        gpu, builder = find_gpu(), manifest.builder.name
        why = f"{builder} does not run on this {gpu.name}" if gpu else "it needs a GPU, and this machine has none"
        say(f"not timed: {why}")
    if gate is not None and gate.timing is not None and gate.int8_timing is not None:
        ratio = gate.timing.p50_ms / gate.int8_timing.p50_ms
        verdict = f"{ratio:.2f}× as fast as" if ratio > 1 else f"SLOWER ({ratio:.2f}×) than"
        say(f"INT8 is {verdict} floating point here ({gate.precision.upper()} {gate.timing.p50_ms:.1f} ms, in turns)")
    if gate is not None and gate.moved is not None and gate.int8_moved is not None and gate.int8_moved >= gate.moved:
        floats = gate.precision.upper()
        say(
            f"{floats} on this target: by {manifest.builder.name}'s plans INT8 moves {gate.int8_moved / 1e6:.1f} MB and "
            f"{floats} {gate.moved / 1e6:.1f} MB a frame, and is likely to be slower; --{gate.precision} builds that one, and "
            "inspect --plan with both ONNX files shows where they differ"
        )
