"""What published networks compute: functional calls on weights that are looked up by their published names."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from published_names import Shapes
from torch import Tensor

Weights = dict[str, Tensor]


def shapes_of(weights: Weights) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in weights.items()}


def random_weights(names: Shapes, seed: int) -> Weights:
    """Weights that keep signals near unit size, with batch-norm statistics that are not the identity's."""
    random = torch.Generator().manual_seed(seed)
    weights: Weights = {}
    for name, shape in names.items():
        if name.endswith("num_batches_tracked"):
            weights[name] = torch.tensor(7)
        elif name.endswith("running_var"):
            weights[name] = torch.rand(shape, generator=random) + 0.5
        elif len(shape) == 4:
            fan_in = shape[1] * shape[2] * shape[3]
            weights[name] = torch.randn(shape, generator=random) * (2 / fan_in) ** 0.5
        elif name.endswith("weight"):
            weights[name] = torch.rand(shape, generator=random) * 0.5 + 0.5
        else:
            weights[name] = torch.randn(shape, generator=random) * 0.1
    return weights


# The stride of the first block of each of a ResNet's layers, its atrous rate, and the rate of the later ones
RESNET_STAGES = {8: ((1, 1, 1), (2, 1, 1), (1, 1, 2), (1, 2, 4)), 16: ((1, 1, 1), (2, 1, 1), (2, 1, 1), (1, 1, 2))}


class ByName:
    """Operations of torch.nn.functional on weights that are looked up by their published names."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self.epsilon = 1e-5

    def conv(self, x: Tensor, name: str, stride: int = 1, rate: int = 1, groups: int = 1, padding: int | None = None) -> Tensor:
        weight = self.weights[f"{name}.weight"]
        zeros = rate * (weight.shape[2] // 2) if padding is None else padding
        return F.conv2d(x, weight, self.weights.get(f"{name}.bias"), stride, zeros, rate, groups)

    def norm(self, x: Tensor, name: str) -> Tensor:
        mean, var, weight, bias = (self.weights[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, mean, var, weight, bias, training=False, eps=self.epsilon)

    def conv_norm(
        self, x: Tensor, at: str, stride: int = 1, rate: int = 1, groups: int = 1, padding: int | None = None
    ) -> Tensor:
        return self.norm(self.conv(x, f"{at}.0", stride, rate, groups, padding), f"{at}.1")

    # ResNets

    def resnet_stem(self, x: Tensor) -> Tensor:
        return F.max_pool2d(F.relu(self.norm(self.conv(x, "backbone.conv1", 2), "backbone.bn1")), 3, 2, 1)

    def shortcut(self, x: Tensor, at: str, stride: int) -> Tensor:
        return self.conv_norm(x, f"{at}.downsample", stride) if f"{at}.downsample.0.weight" in self.weights else x

    def basic_block(self, x: Tensor, at: str, stride: int, first: int, second: int) -> Tensor:
        y = F.relu(self.norm(self.conv(x, f"{at}.conv1", stride, first), f"{at}.bn1"))
        return F.relu(self.norm(self.conv(y, f"{at}.conv2", 1, second), f"{at}.bn2") + self.shortcut(x, at, stride))

    def bottleneck(self, x: Tensor, at: str, stride: int, rate: int) -> Tensor:
        y = F.relu(self.norm(self.conv(x, f"{at}.conv1"), f"{at}.bn1"))
        y = F.relu(self.norm(self.conv(y, f"{at}.conv2", stride, rate), f"{at}.bn2"))
        return F.relu(self.norm(self.conv(y, f"{at}.conv3"), f"{at}.bn3") + self.shortcut(x, at, stride))

    def bottleneck_resnet(self, x: Tensor, depths: tuple[int, ...], output_stride: int) -> list[Tensor]:
        """The maps of the four layers."""
        x = self.resnet_stem(x)
        maps = []
        for layer, (depth, (stride, first, later)) in enumerate(zip(depths, RESNET_STAGES[output_stride], strict=True), 1):
            for block in range(depth):
                place = (stride, first) if block == 0 else (1, later)
                x = self.bottleneck(x, f"backbone.layer{layer}.{block}", *place)
            maps.append(x)
        return maps

    # MobileNetV2

    def inverted_residual(self, x: Tensor, number: int, stride: int, rate: int) -> Tensor:
        at, y, part = f"backbone.features.{number}.conv", x, 0
        if number > 1:
            y, part = F.relu6(self.conv_norm(x, f"{at}.0")), 1
        y = F.relu6(self.conv_norm(y, f"{at}.{part}", stride, rate, groups=y.shape[1]))
        y = self.norm(self.conv(y, f"{at}.{part + 1}"), f"{at}.{part + 2}")
        return x + y if y.shape == x.shape else y

    def vainf_inverted_residual(self, x: Tensor, number: int, stride: int, rate: int) -> Tensor:
        """VainF's block: zeros stand around its input, so behind the expansion the border is not zero."""
        at = f"backbone.{'low' if number < 4 else 'high'}_level_features.{number}.conv"
        y, part = F.pad(x, [rate, rate, rate, rate]), 0
        if number > 1:
            y, part = F.relu6(self.conv_norm(y, f"{at}.0", padding=0)), 1
        y = F.relu6(self.conv_norm(y, f"{at}.{part}", stride, rate, groups=y.shape[1], padding=0))
        y = self.norm(self.conv(y, f"{at}.{part + 1}"), f"{at}.{part + 2}")
        return x + y if y.shape == x.shape else y

    def vainf_mobilenet(self, x: Tensor, output_stride: int) -> tuple[Tensor, Tensor]:
        """VainF's low- and high-level features; its first convolution is not padded at all."""
        x = F.relu6(self.conv_norm(x, "backbone.low_level_features.0", 2, padding=0))
        strided = {2, 4, 7, 14} if output_stride == 32 else {2, 4, 7} if output_stride == 16 else {2, 4}
        rates = {16: {15: 2, 16: 2, 17: 2}, 8: dict.fromkeys(range(8, 15), 2) | dict.fromkeys(range(15, 18), 4)}[output_stride]
        low = x
        for number in range(1, 18):
            x = self.vainf_inverted_residual(x, number, 2 if number in strided else 1, rates.get(number, 1))
            low = x if number == 3 else low
        return low, x

    # MobileNetV3

    def mobilenet_v3(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """torchvision's dilated MobileNetV3-Large: the first 40-channel map, and the last one at output stride 16."""
        self.epsilon = 1e-3
        x = F.hardswish(self.conv_norm(x, "backbone.0", 2))
        middle = x
        for number in range(1, 16):
            stride, rate = 2 if number in (2, 4, 7) else 1, 2 if number in (13, 14, 15) else 1
            x = self.gated_residual(x, f"backbone.{number}.block", stride, rate, F.hardswish if number >= 7 else F.relu)
            middle = x if number == 4 else middle
        x = F.hardswish(self.conv_norm(x, "backbone.16"))
        self.epsilon = 1e-5
        return middle, x

    def gated_residual(self, x: Tensor, at: str, stride: int, rate: int, activation: object) -> Tensor:
        assert callable(activation)
        y, part = x, 0
        if self.weights[f"{at}.0.0.weight"].shape[2] == 1:
            y, part = activation(self.conv_norm(x, f"{at}.0")), 1
        y = activation(self.conv_norm(y, f"{at}.{part}", stride, rate, groups=y.shape[1]))
        part += 1
        if f"{at}.{part}.fc1.weight" in self.weights:
            gate = F.relu(self.conv(y.mean((2, 3), keepdim=True), f"{at}.{part}.fc1"))
            y = y * F.hardsigmoid(self.conv(gate, f"{at}.{part}.fc2"))
            part += 1
        y = self.conv_norm(y, f"{at}.{part}")
        return x + y if y.shape == x.shape else y

    # Heads

    def aspp(self, x: Tensor, rates: tuple[int, ...], at: str) -> Tensor:
        branches = [F.relu(self.conv_norm(x, f"{at}.convs.0"))]
        for branch, rate in enumerate(rates, 1):
            branches.append(F.relu(self.conv_norm(x, f"{at}.convs.{branch}", rate=rate)))
        pooling = f"{at}.convs.{len(rates) + 1}"
        pooled = F.relu(self.norm(self.conv(x.mean((2, 3), keepdim=True), f"{pooling}.1"), f"{pooling}.2"))
        branches.append(F.interpolate(pooled, size=x.shape[2:], mode="bilinear", align_corners=False))
        return F.relu(self.conv_norm(torch.cat(branches, 1), f"{at}.project"))

    def head(self, x: Tensor, rates: tuple[int, ...], at: str = "classifier") -> Tensor:
        y = F.relu(self.norm(self.conv(self.aspp(x, rates, f"{at}.0"), f"{at}.1"), f"{at}.2"))
        return self.conv(y, f"{at}.4")

    def auxiliary(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm(self.conv(x, "aux_classifier.0"), "aux_classifier.1"))
        return self.conv(y, "aux_classifier.4")

    def decoder(self, low: Tensor, high: Tensor, rates: tuple[int, ...]) -> Tensor:
        low = F.relu(self.conv_norm(low, "classifier.project"))
        high = self.aspp(high, rates, "classifier.aspp")
        high = F.interpolate(high, size=low.shape[2:], mode="bilinear", align_corners=False)
        return self.conv(F.relu(self.conv_norm(torch.cat([low, high], 1), "classifier.classifier")), "classifier.classifier.3")

    def lraspp(self, low: Tensor, high: Tensor) -> Tensor:
        y = F.relu(self.conv_norm(high, "classifier.cbr"))
        y = y * torch.sigmoid(self.conv(high.mean((2, 3), keepdim=True), "classifier.scale.1"))
        y = F.interpolate(y, size=low.shape[2:], mode="bilinear", align_corners=False)
        return self.conv(low, "classifier.low_classifier") + self.conv(y, "classifier.high_classifier")
