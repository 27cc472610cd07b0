"""The experiments of "Rethinking Atrous Convolution for Semantic Image Segmentation" (Chen et al. 2017, arXiv 1706.05587v3).

Every figure of Tables 1 to 6 is a Recipe: what is trained on what, how it is inferred, and the mIoU that was published.
"""

from dlv3deploy.core.paper.recipe import Inference, Recipe, Stage, training_name

__all__ = ["Inference", "Recipe", "Stage", "training_name"]
