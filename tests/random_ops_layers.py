"""Ops that meet weights: each as a module for feature maps of `c` channels, its weight under the usual name."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from tests import random_steps as steps
from tests.random_ops_space import in_depth, on_lines

A = torch.ops.aten


class LineConv(nn.Conv1d):
    """A convolution along the lines of a map."""

    def forward(self, x: Tensor) -> Tensor:
        return on_lines(x, super().forward)


class DeepConv(nn.Conv3d):
    """A convolution over a map and another one behind it."""

    def forward(self, x: Tensor) -> Tensor:
        return in_depth(x, x.tanh(), super().forward)


class LineTransposed(nn.ConvTranspose1d):
    """A transposed convolution along the lines of a map."""

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        return on_lines(x, super().forward)


class DeepTransposed(nn.ConvTranspose3d):
    """A transposed convolution over a map and another one behind it."""

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        return in_depth(x, x.tanh(), super().forward)


class LastLinear(nn.Linear):
    """A dense layer over the channels of every pixel."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class LastRMSNorm(nn.RMSNorm):
    """RMSNorm over the channels of every pixel."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class LastLayerNorm(nn.LayerNorm):
    """LayerNorm over the channels of every pixel."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class PixelRecurrence(nn.Module):
    """A recurrent layer that reads a map pixel by pixel."""

    def __init__(self, layer: nn.RNNBase) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        read: Tensor = self.layer(x.flatten(2).transpose(1, 2))[0]
        return read.transpose(1, 2).unflatten(2, x.shape[2:])


class PixelProduct(steps.Product):
    """`mm`, `matmul`, or `addmm` with a bias, of every pixel's channels and the weight."""

    def __init__(self, inputs: int, outputs: int, op: str) -> None:
        super().__init__(inputs, outputs)
        self.op = op
        self.bias = nn.Parameter(torch.empty(outputs)) if op == "addmm" else None

    def forward(self, x: Tensor) -> Tensor:
        b, _, h, w = x.shape
        pixels = x.permute(0, 2, 3, 1).flatten(0, 2)
        if self.op == "mm":
            made = torch.mm(pixels, self.weight)
        else:
            made = pixels @ self.weight if self.bias is None else torch.addmm(self.bias, pixels, self.weight)
        image: Tensor = made.unflatten(0, (b, h, w))
        return image.permute(0, 3, 1, 2)


class Interfaced(nn.Conv2d):
    """Weight norm by the op that export writes for it."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, padding=1)
        self.weight_g = nn.Parameter(torch.empty(outputs, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        normed = A._weight_norm_interface.default(self.weight, self.weight_g, 0)[0]
        return F.conv2d(x, normed, self.bias, self.stride, self.padding)


class Legit(nn.BatchNorm2d):
    """BatchNorm by the op that export writes for it."""

    def forward(self, x: Tensor) -> Tensor:
        statistics = self.running_mean, self.running_var
        return A._native_batch_norm_legit_no_training.default(x, self.weight, self.bias, *statistics, 0.1, 1e-5)[0]  # type: ignore[no-any-return]


class Positions(nn.Module):
    """A table with one vector a row of the image."""

    def __init__(self, rows: int, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(rows, channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + F.embedding(torch.arange(x.shape[2]), self.weight).t()[:, :, None]


Layer = Callable[[int, int, Tensor], nn.Module]

LAYERS: dict[str, Layer] = {
    "aten.conv1d.default": lambda c, o, x: LineConv(c, o, 3, stride=2, padding=1),
    "aten.conv1d.padding": lambda c, o, x: LineConv(c, o, 3, padding="same", bias=False),
    "aten.conv2d.default": lambda c, o, x: nn.Conv2d(c, o, 3, padding=1, padding_mode="replicate"),
    "aten.conv2d.padding": lambda c, o, x: nn.Conv2d(c, o, 3, padding="same"),
    "aten.conv3d.default": lambda c, o, x: DeepConv(c, o, (2, 3, 3), padding=(0, 1, 1)),
    "aten.conv3d.padding": lambda c, o, x: DeepConv(c, o, (1, 3, 3), padding="same", groups=2 - o % 2),
    "aten.conv_transpose1d.default": lambda c, o, x: LineTransposed(c, o, 3, padding=1),
    "aten.conv_transpose2d.input": lambda c, o, x: nn.ConvTranspose2d(c, o, 2, stride=2),
    "aten.conv_transpose3d.input": lambda c, o, x: DeepTransposed(c, o, (1, 3, 3), padding=(0, 1, 1)),
    "aten.linear.default": lambda c, o, x: LastLinear(c, o),
    "aten.matmul.default": lambda c, o, x: PixelProduct(c, o, "matmul"),
    "aten.mm.default": lambda c, o, x: PixelProduct(c, o, "mm"),
    "aten.addmm.default": lambda c, o, x: PixelProduct(c, o, "addmm"),
    "aten._weight_norm.default": lambda c, o, x: parametrizations.weight_norm(nn.Conv2d(c, o, 1)),
    "aten._weight_norm_interface.default": lambda c, o, x: Interfaced(c, o),
    "aten.batch_norm.default": lambda c, o, x: nn.BatchNorm2d(c),
    "aten._native_batch_norm_legit_no_training.default": lambda c, o, x: Legit(c),
    "aten.instance_norm.default": lambda c, o, x: nn.InstanceNorm2d(c, affine=o % 2 == 0),
    "aten.group_norm.default": lambda c, o, x: nn.GroupNorm(2, c),
    "aten.layer_norm.default": lambda c, o, x: LastLayerNorm(c),
    "aten.rms_norm.default": lambda c, o, x: LastRMSNorm(c),
    "aten.prelu.default": lambda c, o, x: nn.PReLU(c),
    "aten.lstm.input": lambda c, o, x: PixelRecurrence(nn.LSTM(c, o, batch_first=True)),
    "aten.gru.input": lambda c, o, x: PixelRecurrence(nn.GRU(c, o, batch_first=True, bidirectional=o % 2 == 0)),
    "aten.rnn_tanh.input": lambda c, o, x: PixelRecurrence(nn.RNN(c, o, 2, batch_first=True)),
    "aten.rnn_relu.input": lambda c, o, x: PixelRecurrence(nn.RNN(c, o, batch_first=True, nonlinearity="relu")),
    "aten.embedding.default": lambda c, o, x: Positions(x.shape[2], c),
}
