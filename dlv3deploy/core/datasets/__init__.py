"""Data sets: published layouts and plain folders, opened, checked and shown before training begins.

`open_dataset` recognises a folder by what is in it; every layout has a module of its own.
"""

from dlv3deploy.core.datasets.dataset import Dataset
from dlv3deploy.core.datasets.folders import FORM, pairs
from dlv3deploy.core.datasets.layout import Split
from dlv3deploy.core.datasets.opening import dataset_classes, find_root, open_dataset, own_splits, require_same_classes
from dlv3deploy.core.datasets.report import DataReport
from dlv3deploy.core.datasets.sample import Sample

__all__ = [
    "FORM",
    "DataReport",
    "Dataset",
    "Sample",
    "Split",
    "dataset_classes",
    "find_root",
    "open_dataset",
    "own_splits",
    "pairs",
    "require_same_classes",
]
