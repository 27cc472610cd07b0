"""A data set: the samples of one split, checked before they are used."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dlv3deploy.core.classes import Classes
from dlv3deploy.core.datasets.layout import Split
from dlv3deploy.core.datasets.report import DataReport, Finding
from dlv3deploy.core.datasets.report_cache import cache_path, fingerprint, keep_report, load_report
from dlv3deploy.core.datasets.sample import Sample
from dlv3deploy.core.errors import UserError
from dlv3deploy.core.images import check_label
from dlv3deploy.core.progress import tracked

MOST_THREADS = 8


@dataclass(frozen=True)
class Dataset:
    """Samples of one split, sorted as their layout lists them; `description` says which set of images they are."""

    root: Path
    split: Split
    classes: Classes
    samples: tuple[Sample, ...]
    description: str = ""

    def __len__(self) -> int:
        return len(self.samples)

    def check(self, cache: Path | None = None) -> DataReport:
        """Read every image and label once; what is in them.

        With a `cache` folder the report is kept there, and files that did not change since are not read again. Raises
        UserError naming the first sample that is damaged, holds unknown ids or has a label of another size, and when every
        pixel is ignored.
        """
        kept = cache_path(cache, self.root, self.split) if cache else None
        key = fingerprint(self.samples, self.classes) if kept else ""
        if kept and (known := load_report(kept, key)):
            return known
        with ThreadPoolExecutor(min(MOST_THREADS, max(4, os.cpu_count() or 1))) as pool:
            findings = tracked(pool.map(self._check_one, self.samples), f"checking {self.split}", len(self))
            report = DataReport.collect(findings, self.classes.names)
        if not report.labelled:
            raise UserError(
                f"{self.samples[0].label.parent} holds nothing but the ignored id {self.classes.ignore_index}",
                f"labels are class ids from 0 to {len(self.classes) - 1}",
                "mend the labels, or give the --ignore-index that they use",
            )
        if kept:
            keep_report(kept, key, report)
        return report

    def _check_one(self, sample: Sample) -> Finding:
        frame, label = sample.read()
        check_label(label, self.classes, sample.label)
        if frame.shape[:2] != label.shape:
            raise UserError(
                f"{sample.image} is {frame.shape[1]}×{frame.shape[0]}, {sample.label} is {label.shape[1]}×{label.shape[0]}",
                "an image and its label have one size in training",
                "resize the label with nearest neighbours",
            )
        height, width = label.shape
        return Finding(height, width, np.bincount(label.ravel(), minlength=256))

    def repeating(self, names: Sequence[str], report: DataReport, times: int = 2) -> Dataset:
        """The same data set in which every image that holds one of the named classes comes `times` times.

        The paper (section 4.3) does so with bicycle, chair, table, pottedplant and sofa. `report` is what `check` returned:
        labels are not read again. Raises UserError for a name that is no class.
        """
        if times < 1:
            raise UserError(f"{times} times", "an image comes at least once", "use 2, as the paper does")
        if len(report.held) != len(self):
            raise UserError(
                f"a report of {len(report.held)} images", f"the data set has {len(self)}", "check this data set again"
            )
        holding = report.holding(names)
        again = tuple(sample for sample, holds in zip(self.samples, holding, strict=True) if holds)
        if not again or times == 1:
            return self
        described = f"{self.description}; {len(again):,} images with {', '.join(names)} come {times} times"
        return replace(self, samples=self.samples + again * (times - 1), description=described)
