"""The modules of a chain: inverted residuals, identity, stem and head."""

from __future__ import annotations

from torch import Tensor, nn

from nasrun.search_space.depthwise import Depthwise
from nasrun.search_space.mbconv_chain.table import (
    Activation,
    ChainPlan,
    MbconvPlan,
    Operation,
    Option,
    SqueezeKind,
)
from nasrun.search_space.noise import Noise
from nasrun.search_space.operation import Pointwise

_ACTIVATIONS = {"relu": nn.ReLU, "relu6": nn.ReLU6, "hard_swish": nn.Hardswish}


def activation(name: Activation) -> nn.Module:
    """Build an activation by its name."""
    return _ACTIVATIONS[name]()


class ChannelShuffle(nn.Module):
    """Takes a channel of each group in turn: [B, C, H, W] -> [B, C, H, W]."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        apart = x.view(batch, self.groups, channels // self.groups, height, width)
        return apart.transpose(1, 2).reshape(x.shape)


class SqueezeExcite(nn.Module):
    """Weighs channels by what all positions have (Hu et al. 2018): [B, C, H, W] -> the same."""

    def __init__(self, channels: int, squeezed: int, kind: SqueezeKind) -> None:
        super().__init__()
        self.weights = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, squeezed, 1),
            nn.ReLU(),
            nn.Conv2d(squeezed, channels, 1),
            nn.Sigmoid() if kind == "mnasnet" else nn.Hardsigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        weighted: Tensor = x * self.weights(x)
        return weighted


def pointwise(inputs: int, outputs: int, groups: int) -> nn.Conv2d:
    """Build a 1×1 convolution without bias."""
    if groups == 1:
        return Pointwise(inputs, outputs)
    return nn.Conv2d(inputs, outputs, 1, groups=groups, bias=False)


class MBConv(nn.Sequential):
    """An inverted residual without its residual: [B, inputs, H, W] -> [B, outputs, H', W'].

    1×1 to ``expansion`` times as many channels (left out at expansion 1, unless ``expand_always``),
    depthwise k×k with the stride, squeeze-excite where wanted, 1×1 back. Batch norm after each
    convolution, an activation after the first two (Sandler et al. 2018).
    """

    def __init__(self, layer: MbconvPlan, operation: Operation) -> None:
        hidden, groups = operation.expansion * layer.inputs, operation.groups
        modules: list[nn.Module] = []
        if operation.expansion > 1 or layer.style.expand_always or groups > 1:
            modules += [
                *(pointwise(layer.inputs, hidden, groups), nn.BatchNorm2d(hidden)),
                activation(layer.activation),
            ]
        if groups > 1:
            modules.append(ChannelShuffle(groups))
        modules += [
            *(Depthwise(hidden, operation.kernel, layer.stride), nn.BatchNorm2d(hidden)),
            activation(layer.activation),
        ]
        squeezed = layer.squeezed(operation)
        if squeezed is not None:
            modules.append(SqueezeExcite(hidden, squeezed, layer.style.squeeze))
        modules += [pointwise(hidden, layer.outputs, groups), nn.BatchNorm2d(layer.outputs)]
        super().__init__(*modules)


def build_option(layer: MbconvPlan, option: Option) -> nn.Module:
    """Build an option of a layer, without residual.

    An identity that changes the shape is a 1×1 convolution with batch norm and activation (FBNet).
    """
    if option is not None:
        return MBConv(layer, option)
    if layer.keeps_shape:
        return nn.Identity()
    return nn.Sequential(
        *(Pointwise(layer.inputs, layer.outputs, layer.stride), nn.BatchNorm2d(layer.outputs)),
        activation(layer.activation),
    )


def stem(plan: ChainPlan) -> nn.Sequential:
    """Build 3×3 convolution, batch norm, activation: [B, C, H, W] -> [B, stem, H', W']."""
    convolution = nn.Conv2d(
        plan.problem.channels, plan.stem, 3, plan.stem_stride, padding=1, bias=False
    )
    return nn.Sequential(convolution, nn.BatchNorm2d(plan.stem), activation(plan.activation))


class Head(nn.Module):
    """1×1 convolution, pooling, maybe a linear layer, linear: [B, C, H, W] -> [B, K].

    The first linear layer has no bias; it is there where the plan has ``mix`` (MobileNetV3).
    """

    def __init__(self, plan: ChainPlan, noise: Noise) -> None:
        super().__init__()
        self.noise = noise
        self.features = nn.Sequential(
            *(Pointwise(plan.layers[-1].outputs, plan.features), nn.BatchNorm2d(plan.features)),
            activation(plan.activation),
        )
        mix = () if plan.mix is None else (nn.Linear(plan.features, plan.mix, bias=False),)
        self.mix = nn.Sequential(
            *(part for one in mix for part in (one, activation(plan.activation)))
        )
        self.classifier = nn.Linear(plan.mix or plan.features, plan.problem.classes)

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.mix(self.features(x).mean((2, 3)))
        logits: Tensor = self.classifier(self.noise.dropout(pooled))
        return logits


def initialise(network: nn.Module) -> None:
    """Fill convolutions by He's rule over outputs, linear layers with deviation 0.01.

    Source: the released codes of MobileNetV2 (torchvision) and ProxylessNAS.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
