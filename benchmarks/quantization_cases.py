"""The models that are compared: what feeds them, which images calibrate them and which ones judge them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from quantization_masks import Judged
from twins import Twin, twin_of

from dlv3deploy.calibration.pictures import images_hash, spread
from dlv3deploy.commands.options import describe
from dlv3deploy.core.datasets import Sample, Split, find_root, open_dataset, own_splits
from dlv3deploy.core.engine import Engine
from dlv3deploy.core.errors import UserError
from dlv3deploy.core.files import sha256_of, write_bytes
from dlv3deploy.core.foreign import spec_of
from dlv3deploy.core.graph import embed_spec, embedded_spec, fix_input, load_onnx, ports, save_onnx
from dlv3deploy.core.images import Mask, check_label, list_images
from dlv3deploy.core.spec import ModelSpec
from dlv3deploy.engines.onnxruntime_engine import OnnxRuntimeEngine

DESCRIPTION = ("classes", "ignore-index", "mean", "std", "output")
KEYS = ("data", "images", "hard", *DESCRIPTION)
GREY = "127.5,127.5,127.5"
CAMVID_TWINS = Twin(1, 4), Twin(2, 16), Twin(3, 64), Twin(4, 64)
VOC_TWINS = (Twin(5, 64),)


@dataclass(frozen=True)
class Request:
    """A model as the command line names it. `description` are options of `dlv3deploy calibrate` for a foreign file.

    `calibrate` and `judge` take every so many-th image from the first one on: (1, 2) is 1::2. `count` calibration images, or as
    many as the table has. `twin` is put in the model's place. `is_hard` cases are for the methods that show what is lost.
    """

    name: str
    model: Path
    data: Path
    images: Path
    description: tuple[str, ...] = ()
    calibrate: tuple[int, int] = (0, 1)
    judge: tuple[int, int] = (0, 1)
    count: int | None = None
    twin: Twin | None = None
    is_hard: bool = False


@dataclass(frozen=True)
class Case:
    """A model of fixed size with its images. `images` is a folder of exactly the calibration images, in their order.

    `model` is a copy in the workspace: not every quantiser leaves the file that it reads alone.
    """

    name: str
    model: Path
    input: str
    spec: ModelSpec
    description: tuple[str, ...]
    images: Path
    judged: tuple[Judged, ...]
    labels: tuple[Mask, ...]
    fingerprints: dict[str, str]  # sha256 of the model, the calibration images and the judged images with their labels
    about: str
    is_hard: bool = False

    @property
    def size(self) -> tuple[int, int]:
        return self.spec.input.height, self.spec.input.width


def built_in(shared: Path) -> dict[str, Request]:
    """What lies in the folder `shared`, by name."""
    camvid, voc = shared / "data" / "camvid", shared / "data" / "voc"
    models, frames = shared / "models", camvid / "train" / "images"
    as_camvid = ("--classes", "camvid", "--mean", GREY, "--std", GREY)
    as_voc = ("--classes", "voc", "--mean", GREY, "--std", GREY)
    of_camvid = Request("camvid", models / "deeplabv3_mnv2_camvid.onnx", camvid, frames, as_camvid)
    given_twin = Request("camvid-twin", models / "deeplabv3_mnv2_camvid_twin.onnx", camvid, frames, as_camvid)
    of_voc = Request("voc", models / "deeplabv3_mnv2_voc_513.onnx", voc, voc / "images", as_voc, (1, 2), (0, 2))
    hard = partial(replace, is_hard=True)
    requests = (
        *(of_camvid, given_twin, of_voc),
        replace(of_voc, name="voc-other-half", calibrate=of_voc.judge, judge=of_voc.calibrate),
        *(hard(of_camvid, name=f"camvid-twin-{t.factor:g}-{t.seed}", twin=t) for t in CAMVID_TWINS),
        *(hard(of_voc, name=f"voc-twin-{t.factor:g}-{t.seed}", twin=t) for t in VOC_TWINS),
        hard(of_camvid, name="camvid-8-images", count=8),
        hard(of_camvid, name="camvid-other-camera", images=of_voc.images),
    )
    return {request.name: request for request in requests}


def parse_request(text: str, known: dict[str, Request], data: Path | None, images: Path | None) -> Request:
    """`NAME`, one of `known`, or `NAME=FILE[,classes=…,mean=R,G,B,…,data=…,images=…,hard=yes]`. Raises UserError."""
    name, sign, rest = text.partition("=")
    if not sign:
        if name not in known:
            listed = f"one of {', '.join(known)}" if known else "NAME=FILE.onnx, or --shared DIR for the built-in ones"
            raise UserError(f"--model {name}", "is no built-in model", f"give {listed}")
        return known[name]
    if not re.fullmatch(r"[\w.-]+", name):
        raise UserError(f"--model {name}", "names a folder of the workspace", "use letters, digits, dots and dashes")
    file, *settings = re.split(r",(?=[a-z-]+=)", rest)
    given = dict(setting.split("=", 1) for setting in settings)
    if strange := [key for key in given if key not in KEYS]:
        raise UserError(f"--model {text}", f"{strange[0]} is unknown", f"use some of {', '.join(KEYS)}")
    data, images = Path(given.get("data") or data or ""), Path(given.get("images") or images or "")
    for option, path in (("--data", data), ("--calibration-images", images)):
        if path == Path():
            raise UserError(f"--model {name}", f"has no {option}", f"give {option} DIR")
    described = tuple(word for key in DESCRIPTION if key in given for word in (f"--{key}", given[key]))
    if given.get("hard", "no") not in ("yes", "no"):
        raise UserError(f"--model {text}: hard={given['hard']}", "is no answer", "give hard=yes or hard=no")
    return Request(name, Path(file), data, images, described, is_hard=given.get("hard") == "yes")


def open_request(request: Request) -> Engine:
    """The model of a request on ONNX Runtime, as the command line would open it."""
    given = dict(zip(request.description[::2], request.description[1::2], strict=True))
    described = describe(given.get("--classes"), None, given.get("--mean"), given.get("--std"), given.get("--output"))
    return OnnxRuntimeEngine.open(request.model, spec_of(load_onnx(request.model), described, str(request.model)))


def open_case(request: Request, folder: Path, count: int, every: int, size: tuple[int, int] | None) -> Case:
    """Read what `request` names, and put model and calibration images into `folder` as all methods will take them.

    `count` calibration images at equal distances, every `every`-th image judged. Raises UserError for what cannot be read.
    """
    model, spec = _model(request, folder, size)
    found = list_images(request.images)[request.calibrate[0] :: request.calibrate[1]] if request.images.is_dir() else []
    if not found:
        raise UserError(str(request.images), "holds no calibration image", "give --calibration-images FOLDER")
    chosen = spread(found, request.count or count)
    samples = samples_of(request.data, spec)[request.judge[0] :: request.judge[1]][::every]
    labels = [sample.read()[1] for sample in samples]
    for sample, label in zip(samples, labels, strict=True):
        check_label(label, spec.classes, sample.label)
    judged = tuple(
        Judged(s.image, (int(label.shape[0]), int(label.shape[1]))) for s, label in zip(samples, labels, strict=True)
    )
    part = {step: "" if step == (0, 1) else f", taken {step[0]}::{step[1]}" for step in (request.calibrate, request.judge)}
    return Case(
        request.name,
        model,
        ports(load_onnx(model), str(model))[0].name,
        spec,
        request.description,
        _linked(chosen, folder / "images"),
        judged,
        tuple(labels),
        {
            "model": sha256_of(model),
            "images": images_hash(chosen),
            "judged": images_hash([path for sample in samples for path in (sample.image, sample.label)]),
        },
        f"{_as_trained(spec)}{_as_twin(request.twin)}{spec.input.height}×{spec.input.width}; "
        f"calibrated on {len(chosen)} of {len(found)} images"
        f"{part[request.calibrate]}; judged on {len(samples)} images{part[request.judge]}"
        f"{f', one in {every}' if every > 1 else ''}",
        request.is_hard,
    )


def _model(request: Request, folder: Path, size: tuple[int, int] | None) -> tuple[Path, ModelSpec]:
    """A copy of the file, at one size where it takes several; and the spec at that size."""
    model, where = load_onnx(request.model), str(request.model)
    words = dict(zip(request.description[::2], request.description[1::2], strict=True))
    ignore_index = words.get("--ignore-index")
    description = describe(
        words.get("--classes"),
        int(ignore_index) if ignore_index else None,
        words.get("--mean"),
        words.get("--std"),
        words.get("--output"),
    )
    spec = spec_of(model, description, where)
    height, width = size or (spec.input.height, spec.input.width)
    shape, path = ports(model, where)[0].shape, folder / "model.onnx"
    if request.twin is not None:
        save_onnx(path, twin_of(model, height, width, request.twin))
        return path, spec
    if None not in shape:
        if shape[2:] != (height, width):
            raise UserError(where, f"takes {shape[2]}×{shape[3]} alone", "leave --size out")
        write_bytes(path, request.model.read_bytes())
        return path, spec
    spec = replace(spec, input=replace(spec.input, height=height, width=width, dynamic_size=False, dynamic_batch=False))
    fixed = fix_input(model, (1, 3, height, width))
    if embedded_spec(model, where) is not None:
        embed_spec(fixed, spec)
    save_onnx(path, fixed)
    return path, spec


def _as_trained(spec: ModelSpec) -> str:
    if spec.architecture is None:
        return ""
    steps = f", {spec.training.steps} steps of training" if spec.training else ""
    return f"{spec.architecture}{steps}; "


def _as_twin(twin: Twin | None) -> str:
    return f"factors from 1/{twin.factor:g} to {twin.factor:g} by seed {twin.seed}; " if twin else ""


def samples_of(data: Path, spec: ModelSpec) -> list[Sample]:
    """All labelled images that are for validation, or all there are where the folder does not tell."""
    root = find_root(data)
    splits: tuple[Split, ...] = ("val",) if own_splits(root) else ("train", "val")
    found = {sample for split in splits for sample in open_dataset(root, split, spec.classes).samples}
    return sorted(found, key=lambda sample: str(sample.image))


def _linked(images: Sequence[Path], folder: Path) -> Path:
    """A folder of links to `images` and nothing else, in whose alphabet they stand in their order."""
    wanted = {f"{number:05}_{path.name}": path.resolve() for number, path in enumerate(images)}
    folder.mkdir(parents=True, exist_ok=True)
    for link in folder.iterdir():
        if link.name not in wanted or link.resolve() != wanted[link.name]:
            link.unlink()
    for name, path in wanted.items():
        if not (folder / name).exists():
            (folder / name).symlink_to(path)
    return folder
