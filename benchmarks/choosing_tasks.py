"""Two tasks with real data that nothing is downloaded for, on which `benchmarks.choosing` compares ways to choose.

* Digits: the residual net of `surgery demo` on scikit-learn's handwritten digits.
* Source: what each of 64 bytes of Python is part of (a keyword, a name, a string, ...), as an editor colours it; a
  transformer over bytes, on packages of the standard library, labelled by its own `tokenize`. Whole files are held
  back.
"""

from __future__ import annotations

import io
import keyword
import sysconfig
import tokenize
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import torchvision_cpu  # noqa: F401  # before timm
from surgery.demo.digits import load_digits
from surgery.demo.net import DigitNet

PACKAGES = ("asyncio", "email", "http", "importlib", "multiprocessing", "unittest", "xml")
KINDS = ("space", "keyword", "name", "number", "string", "comment", "operator")
LENGTH = 64
WINDOWS, TEST_WINDOWS = 4000, 800

HELD_FILES = 0.25
"""The share of all bytes, at least, that lies in files which are held back."""

WIDTH, BLOCKS, HEADS = 64, 2, 4


@dataclass(frozen=True)
class Task:
    """A task: what to learn from, what to be judged by, and the net.

    Attributes:
        name: Of the task.
        inputs, targets: To learn from.
        test_inputs, test_targets: Held back.
        make: A fresh net.
        epochs: Times that everything is seen in training, and in tuning what was cut.
        learning_rate: The highest in training; in tuning a third of it.
        batch: Of the call that is timed.
        levels: Of latency, as shares of the dense net's.
    """

    name: str
    inputs: Tensor
    targets: Tensor
    test_inputs: Tensor
    test_targets: Tensor
    make: Callable[[], nn.Module]
    epochs: tuple[int, int]
    learning_rate: float
    batch: int
    levels: tuple[float, ...]

    @property
    def example(self) -> Tensor:
        """The call that is timed."""
        return self.inputs[: self.batch]

    def batches(self, count: int) -> list[tuple[Tensor, Tensor]]:
        """The first samples, in batches of 32, to judge channels by and to compensate with."""
        return list(zip(self.inputs[:count].split(32), self.targets[:count].split(32), strict=True))

    def accuracy(self, net: nn.Module) -> float:
        """The share of what was held back that the net is right about."""
        net.eval()
        with torch.no_grad():
            answers = torch.cat([net(part) for part in self.test_inputs.split(256)])
        return float((answers.argmax(-1) == self.test_targets).double().mean())

    def train_(self, net: nn.Module, seed: int, *, tuning: bool = False) -> None:
        """AdamW under a one-cycle schedule; leaves the net in eval mode."""
        epochs = self.epochs[tuning]
        rate = self.learning_rate / 3 if tuning else self.learning_rate
        generator = torch.Generator().manual_seed(seed)
        torch.manual_seed(seed)
        optimizer = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=0.01)
        steps = len(self.inputs) // 64
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=epochs * steps)
        net.train()
        for _ in range(epochs):
            order = torch.randperm(len(self.inputs), generator=generator)
            for batch in order[: steps * 64].split(64):
                optimizer.zero_grad()
                loss(net(self.inputs[batch]), self.targets[batch]).backward()
                optimizer.step()
                schedule.step()
        net.eval()


def loss(scores: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy, of scores `[..., kinds]`."""
    return F.cross_entropy(scores.flatten(0, -2), targets.flatten())


def digits() -> Task:
    """Handwritten digits, `[n, 1, 8, 8]`, and the demo's net."""
    data = load_digits()
    order = torch.randperm(len(data.pictures), generator=torch.Generator().manual_seed(0))
    return Task(
        "digits", data.pictures[order], data.labels[order], data.test_pictures, data.test_labels, DigitNet, (8, 2),
        3e-3, 32, (0.5, 0.3),
    )  # fmt: skip


class Bytes(nn.Module):
    """A transformer over bytes, with the blocks of timm's vision transformers: `[n, 64] -> [n, 64, kinds]`."""

    def __init__(self) -> None:
        super().__init__()
        from timm.models.vision_transformer import Block

        self.embed = nn.Embedding(256, WIDTH)
        self.place = nn.Parameter(0.02 * torch.randn(1, LENGTH, WIDTH))
        self.blocks = nn.Sequential(*(Block(WIDTH, HEADS, qkv_bias=True) for _ in range(BLOCKS)))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, len(KINDS))

    def forward(self, text: Tensor) -> Tensor:
        """A score for each kind, at each byte."""
        scores: Tensor = self.head(self.norm(self.blocks(self.embed(text) + self.place)))
        return scores


def source() -> Task:
    """Windows of source, `[n, 64]` bytes, with the kind of each."""
    library = Path(sysconfig.get_paths()["stdlib"])
    files = [file for package in PACKAGES for file in sorted((library / package).rglob("*.py"))]
    texts = [file.read_text(encoding="utf-8") for file in files if "test" not in file.parts]
    texts = [text for text in texts if text.isascii()]  # a column is a byte
    whole, parts = sum(map(len, texts)), ([], [])  # type: tuple[int, tuple[list[str], list[str]]]
    for index in torch.randperm(len(texts), generator=torch.Generator().manual_seed(0)).tolist():
        parts[sum(map(len, parts[1])) < HELD_FILES * whole].append(texts[index])
    (inputs, targets), (test, test_targets) = (
        _windows(some, most) for some, most in zip(parts, (WINDOWS, TEST_WINDOWS), strict=True)
    )
    return Task("source", inputs, targets, test, test_targets, Bytes, (10, 2), 3e-3, 8, (0.75, 0.6, 0.45))


def _windows(texts: list[str], most: int) -> tuple[Tensor, Tensor]:
    """Windows evenly spread over some files, in random order."""
    text = torch.frombuffer(bytearray("".join(texts).encode()), dtype=torch.uint8).long()
    kinds = torch.cat([kinds_of(one) for one in texts])
    count = len(text) // LENGTH
    places = torch.linspace(0, count - 1, min(most, count)).long()
    places = places[torch.randperm(len(places), generator=torch.Generator().manual_seed(0))]
    return tuple(one[: count * LENGTH].view(count, LENGTH)[places] for one in (text, kinds))  # type: ignore[return-value]


def kinds_of(text: str) -> Tensor:
    """What each character is part of, by its place in `KINDS`."""
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    kinds = torch.zeros(len(text), dtype=torch.int64)
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        name = tokenize.tok_name[token.type].lower()
        kind = "keyword" if keyword.iskeyword(token.string) else "operator" if name == "op" else name
        kind = "string" if name.startswith("fstring") else kind  # a token of its own from Python 3.12 on
        if kind in KINDS:
            first, last = (starts[row - 1] + column for row, column in (token.start, token.end))
            kinds[first:last] = KINDS.index(kind)
    return kinds


TASKS: dict[str, Callable[[], Task]] = {"digits": digits, "source": source}
