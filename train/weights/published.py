"""Weights that can be had by name: where they are published, the sha256 that a download must have, and what they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dlv3deploy.core.errors import UserError
from dlv3deploy.core.similar import did_you_mean

Kind = Literal["segmentation", "backbone"]

TORCHVISION_URL = "https://download.pytorch.org/models"
TORCHVISION_LICENCE = "BSD-3-Clause (torchvision)"  # the images that they were trained on have terms of their own
COCO = "COCO train2017, VOC's 21 classes"
IMAGENET = "ImageNet, 1000 classes"


@dataclass(frozen=True)
class Published:
    """One file of weights. All take RGB with ImageNet's mean and std.

    `sha256` is a prefix of 8 to 64 hex digits, and a file is compared with all of them. torchvision publishes the first 8, in
    the file's name; the full digests below begin with those and were found in public records of the very files. `parameters`
    counts the file's own, classifier and auxiliary head included. `figure` is the publisher's: mIoU on COCO val2017 with VOC's
    classes, or the top-1 accuracy on ImageNet's validation images.
    """

    name: str
    file: str
    sha256: str
    megabytes: float
    parameters: int
    kind: Kind
    trained_on: str
    figure: float
    licence: str = TORCHVISION_LICENCE

    @property
    def url(self) -> str:
        return f"{TORCHVISION_URL}/{self.file}"

    @property
    def backbone(self) -> str:
        """What `train --backbone` calls the network; behind a hyphen stands the version of its weights."""
        return self.name.partition("-")[0]

    @property
    def common(self) -> str:
        """What it shares with others of its kind."""
        return f"{self.kind}, {self.trained_on}; {self.licence}"

    @property
    def score(self) -> str:
        return f"{'mIoU' if self.kind == 'segmentation' else 'top-1'} {self.figure:.3f}"


_FILES = (
    Published(
        "deeplabv3_resnet50",
        "deeplabv3_resnet50_coco-cd0a2569.pth",
        "cd0a25694c4a0f7106b38f4938bf90a874f2f241cc410b8f63c7024399538f06",
        megabytes=168.3,
        parameters=42_004_074,
        kind="segmentation",
        trained_on=COCO,
        figure=0.664,
    ),
    Published(
        "deeplabv3_resnet101",
        "deeplabv3_resnet101_coco-586e9e4e.pth",
        "586e9e4e203fcbf17e1ad45533d8d33ab133fc762bf03101c5dd743995c08c0d",
        megabytes=244.5,
        parameters=60_996_202,
        kind="segmentation",
        trained_on=COCO,
        figure=0.674,
    ),
    Published(
        "deeplabv3_mobilenet_v3_large",
        "deeplabv3_mobilenet_v3_large-fc3c493d.pth",
        "fc3c493d68e89cc31ef488c803d5d7dd2f3190fb570598faa49fef69be8e5e70",
        megabytes=44.4,
        parameters=11_029_328,
        kind="segmentation",
        trained_on=COCO,
        figure=0.603,
    ),
    Published(
        "lraspp_mobilenet_v3_large",
        "lraspp_mobilenet_v3_large-d234d4ea.pth",
        "d234d4eae9d55d5f76de18b77cf0dc62c66fe5c5482758209d00f950c92bb280",
        megabytes=13.1,
        parameters=3_221_538,
        kind="segmentation",
        trained_on=COCO,
        figure=0.579,
    ),
    Published(
        "resnet18",
        "resnet18-f37072fd.pth",
        "f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec",
        megabytes=46.8,
        parameters=11_689_512,
        kind="backbone",
        trained_on=IMAGENET,
        figure=0.698,
    ),
    Published(
        "resnet34",
        "resnet34-b627a593.pth",
        "b627a593bcbe140c234610266fe4f8ae95ea42fc881d091c9b6052e6b1d0590f",
        megabytes=87.3,
        parameters=21_797_672,
        kind="backbone",
        trained_on=IMAGENET,
        figure=0.733,
    ),
    Published(
        "resnet50",
        "resnet50-0676ba61.pth",
        "0676ba61b6795bbe1773cffd859882e5e297624d384b6993f7c9e683e722fb8a",
        megabytes=102.5,
        parameters=25_557_032,
        kind="backbone",
        trained_on=IMAGENET,
        figure=0.761,
    ),
    Published(
        "resnet50-v2",
        "resnet50-11ad3fa6.pth",
        "11ad3fa62ca79e40addfd354a8ec4b7c75143b3038b8d2a807fbc68deab379ca",
        megabytes=102.5,
        parameters=25_557_032,
        kind="backbone",
        trained_on=IMAGENET,
        figure=0.809,
    ),
    Published(
        "resnet101",
        "resnet101-63fe2227.pth",
        "63fe2227b86e8f1f2063f43a75c84d195911b6a0eace650907dd3dc62dd49a0a",
        megabytes=178.8,
        parameters=44_549_160,
        kind="backbone",
        trained_on=IMAGENET,
        figure=0.774,
    ),
    Published(
        "resnet101-v2",
        "resnet101-cd907fc2.pth",
        "cd907fc2a0de2292b2ba2b27d2216bc672d84632d1cf20058d01c0c03b5e020e",
        megabytes=178.8,
        parameters=44_549_160,
        kind="backbone",
        trained_on=IMAGENET,
        figure=0.819,
    ),
    Published(
        "mobilenet_v2",
        "mobilenet_v2-b0353104.pth",
        "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889",
        megabytes=14.2,
        parameters=3_504_872,
        kind="backbone",
        trained_on=IMAGENET,
        figure=0.719,
    ),
    Published(
        "mobilenet_v2-v2",
        "mobilenet_v2-7ebf99e0.pth",
        "7ebf99e03e254b273379b23edca7ec0da9f48273b23a332b93c1c99d49e86e8f",
        megabytes=14.3,
        parameters=3_504_872,
        kind="backbone",
        trained_on=IMAGENET,
        figure=0.722,
    ),
    Published(
        "mobilenet_v3_large",
        "mobilenet_v3_large-8738ca79.pth",
        "8738ca797c879b547d18bbd15da5736ff2557b2036a9af72225393ca61759a04",
        megabytes=22.1,
        parameters=5_483_032,
        kind="backbone",
        trained_on=IMAGENET,
        figure=0.740,
    ),
    Published(
        "mobilenet_v3_large-v2",
        "mobilenet_v3_large-5c1a4163.pth",
        "5c1a416349c4cf298f2a6a5e2600ed0ee55e604713578f5e74e6bc8bcaef7997",
        megabytes=22.1,
        parameters=5_483_032,
        kind="backbone",
        trained_on=IMAGENET,
        figure=0.753,
    ),
)
PUBLISHED: dict[str, Published] = {published.name: published for published in _FILES}


def published_called(name: str) -> Published:
    """The entry of that name. Raises UserError."""
    if name not in PUBLISHED:
        all_names = "dlv3deploy import-weights --list shows every name"
        remedy = " ".join(filter(None, (did_you_mean(name, PUBLISHED), all_names)))
        raise UserError(name, "is neither a file nor the name of published weights", remedy)
    return PUBLISHED[name]


def published_as(sha256: str) -> Published | None:
    """What a file with this full digest was published as, wherever it lies and whatever it is called."""
    return next((published for published in _FILES if sha256.startswith(published.sha256)), None)
