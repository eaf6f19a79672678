"""Results to write pages of, and what a page says, read back from its HTML."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import torch
from torch import nn

from surgery.exporting import Export, Parity
from surgery.latency.machine import Machine
from surgery.latency.results import Benchmark, Cell, Row, Settings
from surgery.results import Result
from surgery.shrinking import shrink

HOSTILE = "<img src=x onerror=alert(1)>\"'&{{7*7}}</script><script>alert(2)</script>"
MACHINE = Machine("A <b>Processor</b>", "AVX512", 8, 4, ("A GPU",), "Linux-6", "3.11.7", "2.13.0", None)
VOID = {"area", "base", "br", "col", "hr", "img", "input", "link", "meta", "wbr"}


class Residual(nn.Module):
    """A residual net whose masks disagree: channels of the stream are stranded."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.inner = nn.Conv2d(16, 24, 3, padding=1)
        self.back = nn.Conv2d(24, 16, 1)
        self.head = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        x = x + self.back(torch.relu(self.inner(x)))
        return self.head(x.mean((2, 3)))


def stranded_result() -> Result:
    """Half of `inner` goes, with a constant that is folded; four channels of the stream are zeroed in one layer."""
    torch.manual_seed(0)
    net = Residual().eval()
    with torch.no_grad():
        net.inner.weight[::2] = 0
        net.back.weight[:4], net.back.bias[:4] = 0, 0
    return shrink(net, torch.randn(1, 3, 8, 8))


def hostile_result() -> Result:
    """A net whose layers have names that would run if they were not escaped."""
    torch.manual_seed(0)
    net = nn.Sequential(OrderedDict({HOSTILE: nn.Linear(6, 8), "relu": nn.ReLU(), "out": nn.Linear(8, 2)}))
    with torch.no_grad():
        net[0].weight[:4], net[0].bias[:4] = 0, 0
    return shrink(net, torch.randn(2, 6))


def export(name: str = "slim.onnx", *, passed: bool = True) -> Export:
    """An export as `surgery.export` describes it."""
    parity = Parity(1e-6, 2e-6, 1e-5, passed, 5, (1, 3))
    return Export(Path(name), "onnx", 45_500, 12.5, 20, parity, ("a note",))


def row(model: str, ms: float, *, n: int = 400, scatter: float = 0.02, seed: int = 0) -> Row:
    """Times around `ms`."""
    latency = ms * np.exp(np.random.default_rng(seed).normal(0, scatter, n))
    return Row(model, tuple(latency.tolist()), tuple(latency.tolist()))


def benchmark(*rows: tuple[Row, ...]) -> Benchmark:
    """One cell for each tuple of rows."""
    given = rows or ((row("masked", 4.2), row("slim", 1.4, seed=1), Row("graph", failure=f"ValueError: {HOSTILE}")),)
    cells = tuple(Cell("onnxruntime", 1, "cpu", batch, models) for batch, models in enumerate(given, 1))
    settings = Settings(("onnxruntime",), (1,), (1,), ("cpu",), 50, 3.0, 30.0, 0)
    return Benchmark(MACHINE, settings, cells, 0.5, None, ("a note",))


@dataclass
class Page(HTMLParser):
    """A page as a reader finds it.

    Attributes:
        tables: By the label of the region around each, its rows of cells.
        sections: The ids of all sections.
        tags: Every tag with its attributes.
        words: All that is text.
        scripts: What stands inside script tags.
    """

    html: str
    tables: dict[str, list[list[str]]] = field(default_factory=dict)
    sections: list[str] = field(default_factory=list)
    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    words: str = ""
    scripts: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        HTMLParser.__init__(self)
        self.open: list[str] = []
        self.label = ""
        self.feed(self.html)
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append((tag, given))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "section":
            self.sections.append(str(given["id"]))
        if given.get("role") == "region":
            self.label = str(given["aria-label"])
            self.tables[self.label] = []
        if tag == "tr":
            self.tables[self.label].append([])
        if tag in {"td", "th"}:
            self.tables[self.label][-1].append("")
        if tag == "script":
            self.scripts.append("")
        if tag != "wbr" and {"td", "th"} & set(self.open[:-1]):
            self.tables[self.label][-1][-1] += " "

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "script" in self.open:
            self.scripts[-1] += data
        elif "style" not in self.open:
            self.words += data
            if {"td", "th"} & set(self.open):
                self.tables[self.label][-1][-1] += data

    def rows(self, label: str) -> list[list[str]]:
        """The cells of a table, white space made one."""
        return [[" ".join(cell.split()) for cell in cells] for cells in self.tables[label]]


def number(text: str) -> int:
    """A count as the page writes it."""
    return int(text.replace(",", ""))


def parts(text: str) -> tuple[int, int]:
    """The last `kept / total` of a cell."""
    before, _, total = text.rpartition(" / ")
    return number(before.split()[-1]), number(total.split()[0])


def elements(result: Result) -> int:
    """All parameters of the model that was handed back."""
    return sum(math.prod(p.shape) for p in result.model.parameters())
