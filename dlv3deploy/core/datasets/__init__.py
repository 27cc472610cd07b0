"""Data sets: published layouts and plain folders, opened, checked and shown before training begins.

`open_dataset` recognises a folder by what is in it; every layout has a module of its own.
"""

from dlv3deploy.core.datasets.dataset import Dataset
from dlv3deploy.core.datasets.folders import FORM, pairs
from dlv3deploy.core.datasets.layout import Split
from dlv3deploy.core.datasets.opening import dataset_classes, find_root, open_dataset, own_splits, require_same_classes
from dlv3deploy.core.datasets.picture import samples_picture
from dlv3deploy.core.datasets.report import DataReport
from dlv3deploy.core.datasets.sample import Sample
from dlv3deploy.core.datasets.voc import HARD_CLASSES
from dlv3deploy.core.datasets.weights import WeightRule, class_weights

__all__ = [
    "FORM",
    "HARD_CLASSES",
    "DataReport",
    "Dataset",
    "Sample",
    "Split",
    "WeightRule",
    "class_weights",
    "dataset_classes",
    "find_root",
    "open_dataset",
    "own_splits",
    "pairs",
    "require_same_classes",
    "samples_picture",
]
