from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from surgery.exporting import export
from surgery.inputs import Inputs
from surgery.proof.cost import macs
from surgery.quantizing.method import CONVOLUTIONS, chosen, count_macs
from tests.quantizing.nets import convnet, pictures, tokens


class Both(nn.Module):
    """Few MACs in convolutions, or many, by the width of the dense half."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem, self.up = nn.Conv2d(3, 4, 3), nn.ConvTranspose2d(4, 4, 2, 2)
        self.dense = nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 5))

    def forward(self, x: Tensor) -> Tensor:
        return self.dense(self.up(self.stem(x)).mean((2, 3)))


def test_macs_are_those_of_the_meta_device(tmp_path: Path, conv_file: Path, token_file: Path) -> None:
    x = pictures(2)
    assert sum(count_macs(conv_file, {"x": x.numpy()}, tmp_path).values()) == macs(convnet(), Inputs.of(x))
    net = Both(50)
    path = export(net, tmp_path / "both.onnx", x).path
    counted = count_macs(path, {"x": x.numpy()}, tmp_path)
    assert sum(counted.values()) == macs(net, Inputs.of(x))
    assert counted["ConvTranspose"] == 2 * 4 * 10 * 10 * 4 * 4
    feed = {name: value.numpy() for name, value in tokens().items()}
    counted = count_macs(token_file, feed, tmp_path)
    rows, width = 12, 24
    dense = rows * width * (3 * width + width + 48 + 48 + 20)
    attention = 2 * 2 * 6 * 6 * width
    assert sum(counted.values()) == dense + attention
    assert not any(counted[kind] for kind in CONVOLUTIONS)


def test_the_larger_half_decides(tmp_path: Path) -> None:
    x = torch.randn(1, 3, 12, 12)
    for width, method in ((10, "static"), (20000, "dynamic")):
        path = export(Both(width), tmp_path / f"{width}.onnx", x).path
        assert chosen(path, {"x": x.numpy()}, tmp_path)[0] == method
