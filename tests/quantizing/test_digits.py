"""Int8 on real data: a small net that reads digits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import surgery
from surgery.demo.digits import load_digits
from surgery.demo.net import DigitNet
from surgery.demo.training import accuracy, train_


@pytest.mark.slow
def test_a_trained_net_keeps_its_accuracy(tmp_path: Path) -> None:
    digits, net = load_digits(), DigitNet(16, 32)
    train_(net, digits, epochs=3, learning_rate=1e-2, seed=0, what="training")

    def right(model: nn.Module) -> float:
        with torch.no_grad():
            return accuracy(model(digits.test_pictures), digits.test_labels)

    done = surgery.quantize(
        net, tmp_path / "q.onnx", digits.pictures[:4], data=digits.pictures, evaluate=right, min_cosine=0.9
    )
    assert done.evaluated is not None
    in_float, in_int8 = done.evaluated
    assert in_float == right(net) > 0.9
    assert in_int8 > in_float - 0.02
    assert done.agreement[0].error is not None
    assert done.agreement[0].error < 0.1
    assert (done.share.quantised, done.share.total) == (12, 12)
