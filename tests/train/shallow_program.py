"""`dlv3deploy` with every network on a ShallowBackbone: what rounding does in a step stays small in the steps behind it."""

from __future__ import annotations

import torch
from small_runs import shallow_backbone

from dlv3deploy.cli import main

if __name__ == "__main__":
    torch.set_num_threads(1)
    with shallow_backbone():
        main()
