"""What `benchmarks.article` learns: pictures with labels, a convolutional net for them, and a smaller one.

Digits are scikit-learn's, and need no network. MNIST and CIFAR-10 come through torchvision, which downloads them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks import torchvision_cpu  # noqa: F401  # before torchvision
from surgery.demo.digits import load_digits
from surgery.errors import InputError, MissingExtraError, first_line

BATCH = 64
"""Pictures of a step, and of the call that is timed."""

ROOT = Path.home() / ".cache" / "surgery" / "datasets"
"""Where what is downloaded is kept."""


@dataclass(frozen=True)
class Task:
    """Pictures to learn from, pictures to be judged by, and how long to learn.

    Attributes:
        name: Of the task.
        pictures, labels: To learn from, `[n, channels, size, size]` and `[n]`.
        test_pictures, test_labels: Held back.
        epochs: Times that everything is seen in a training.
        tuning: The same in a tuning after something was taken away.
    """

    name: str
    pictures: Tensor
    labels: Tensor
    test_pictures: Tensor
    test_labels: Tensor
    epochs: int
    tuning: int

    @property
    def example(self) -> Tensor:
        """The call that is timed."""
        return self.test_pictures[:BATCH]

    def loader(self, seed: int) -> DataLoader[tuple[Tensor, ...]]:
        """All that there is to learn from, in another order each time."""
        generator = torch.Generator().manual_seed(seed)
        return DataLoader(TensorDataset(self.pictures, self.labels), BATCH, shuffle=True, generator=generator)

    def batches(self, count: int) -> list[tuple[Tensor, Tensor]]:
        """The first pictures, to judge channels by and to learn ranges from."""
        return list(zip(self.pictures[:count].split(BATCH), self.labels[:count].split(BATCH), strict=True))

    def accuracy(self, net: nn.Module) -> float:
        """The share of what was held back that the net is right about."""
        with torch.no_grad():
            answers = torch.cat([net(part) for part in self.test_pictures.split(256)])
        return float((answers.argmax(-1) == self.test_labels).double().mean())

    def net(self, width: float = 1.0) -> Net:
        """A fresh net for these pictures."""
        return Net(self.pictures.shape[1], self.pictures.shape[2], width)

    def smaller(self, width: float) -> Small:
        """A fresh net of the other architecture."""
        return Small(self.pictures.shape[1], self.pictures.shape[2], width)


class Net(nn.Module):
    """Four convolutions and two linear layers: `[n, channels, size, size] -> [n, 10]`."""

    def __init__(self, channels: int, size: int, width: float = 1.0) -> None:
        super().__init__()
        a, b, hidden = (max(4, round(width * full)) for full in (32, 64, 128))
        pooled = size // 4
        self.features = nn.Sequential(
            *_block(channels, a), *_block(a, a), nn.MaxPool2d(2), *_block(a, b), *_block(b, b), nn.MaxPool2d(2)
        )
        self.hidden = nn.Linear(b * pooled * pooled, hidden)
        self.classify = nn.Linear(hidden, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Ten scores for each picture."""
        scores: Tensor = self.classify(torch.relu(self.hidden(self.features(x).flatten(1))))
        return scores


class Small(nn.Module):
    """Another architecture: two convolutions, the mean over the picture, one linear layer."""

    def __init__(self, channels: int, size: int, width: float) -> None:
        super().__init__()
        a, b = (max(4, round(width * full)) for full in (32, 64))
        self.features = nn.Sequential(*_block(channels, a), nn.MaxPool2d(2), *_block(a, b))
        self.classify = nn.Linear(b, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Ten scores for each picture."""
        scores: Tensor = self.classify(self.features(x).mean(dim=(2, 3)))
        return scores


def _block(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()


def digits() -> Task:
    """1,347 handwritten digits to learn from, 450 held back, 8 x 8."""
    data = load_digits()
    order = torch.randperm(len(data.pictures), generator=torch.Generator().manual_seed(0))
    return Task("digits", data.pictures[order], data.labels[order], data.test_pictures, data.test_labels, 15, 6)


def downloaded(name: str) -> Task:
    """MNIST or CIFAR-10, downloaded once by torchvision.

    Raises:
        InputError: It is neither there nor to be had.
        MissingExtraError: torchvision is not installed.
    """
    try:
        from torchvision import datasets
    except ImportError as error:
        raise MissingExtraError("torchvision", "models") from error
    kind = {"mnist": datasets.MNIST, "cifar10": datasets.CIFAR10}[name]
    try:
        train, test = (kind(str(ROOT), train=part, download=True) for part in (True, False))
    except Exception as error:
        fact = f"{name} is not in {str(ROOT)!r} and could not be downloaded: {first_line(error)}"
        raise InputError(fact, "connect to the network, put the files there, or take --data digits") from error
    (pictures, labels), (test_pictures, test_labels) = (_prepared(part.data, part.targets) for part in (train, test))
    return Task(name, pictures, labels, test_pictures, test_labels, 8, 3)


def _prepared(data: object, targets: object) -> tuple[Tensor, Tensor]:
    """Pictures `[n, channels, size, size]` about 0, and labels, of what torchvision keeps."""
    pictures = torch.as_tensor(data).float() / 255
    pictures = pictures.unsqueeze(1) if pictures.dim() == 3 else pictures.movedim(-1, 1)
    return (pictures - 0.5) / 0.25, torch.as_tensor(targets)


TASKS: dict[str, Callable[[], Task]] = {
    "digits": digits,
    "mnist": lambda: downloaded("mnist"),
    "cifar10": lambda: downloaded("cifar10"),
}
