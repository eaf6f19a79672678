"""What goes: single weights under masks, which save nothing but bytes on disk, or coupled channels, which are cut."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from surgery.compensating import RUNGS
from surgery.deciding.importance import Importance
from surgery.errors import InputError

ByWeight = Literal["l1", "random"]
Measure = Literal["params", "macs", "size_bytes", "latency", "keep_ratio"]


class How:
    """What goes: `Unstructured` or `Structured`."""


@dataclass(frozen=True)
class Unstructured(How):
    """Single weights, of every product in the net: linear layers, convolutions, attention, recurrent ones.

    Masks of `torch.nn.utils.prune` hold them at zero. Dense kernels multiply zeros like any number: such a net is
    smaller on disk once it is compressed, and not faster. `surgery.shrink` removes of it what happens to be whole
    channels.

    Attributes:
        importance: `"l1"`, the magnitude, or `"random"`.
        global_: One ranking over all layers; False for the same share of each.
        protect: Names of modules and tensors that stay, `*` for any text.
        seed: Of what is drawn at random.
    """

    importance: ByWeight = "l1"
    global_: bool = True
    protect: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        _one_of("importance", self.importance, get_args(ByWeight))
        object.__setattr__(self, "protect", _names(self.protect))


@dataclass(frozen=True)
class Structured(How):
    """Coupled channels, as `surgery.prune` chooses them, and cuts them out of the net while it trains.

    Attributes:
        budget: What the schedule's amount is a share of: `"params"`, `"macs"`, `"size_bytes"`, `"latency"` or, of the
            channels of each group, `"keep_ratio"`.
        cut: Cut at once, so that the rest of the training is of the smaller net; False for masks, which `shrink` cuts
            later. Where weights are rewound, masks hold until the last of it.
        importance, global_, round_to, min_keep, protect, uniform, runtime, threads, seed: As for `surgery.choose`.
        rungs: What is won back before the next step where there is data, as for `surgery.compensate`; none where masks
            hold.
        samples: The most samples that are taken of the data for that.
        prove: Prove every cut.
    """

    budget: Measure = "params"
    cut: bool = True
    importance: str | Importance = "l2"
    global_: bool | None = None
    round_to: int | None = None
    min_keep: float = 1
    protect: tuple[str, ...] = ()
    uniform: bool = False
    runtime: str = "eager"
    threads: int = 1
    rungs: tuple[str, ...] = RUNGS
    samples: int = 512
    seed: int = 0
    prove: bool = field(default=True, repr=False)

    def __post_init__(self) -> None:
        _one_of("budget", self.budget, get_args(Measure))
        object.__setattr__(self, "protect", _names(self.protect))
        object.__setattr__(self, "rungs", tuple(self.rungs))

    @property
    def choosing(self) -> Mapping[str, Any]:
        """What `surgery.choose` is told beside the budget. The class of a net that trains, and its code, stay."""
        names = ["importance", "global_", "round_to", "min_keep", "protect", "uniform", "seed"]
        names += ["runtime", "threads"] if self.budget == "latency" else []
        return {name: getattr(self, name) for name in names} | {"keep_class": True}


def _names(names: Any) -> tuple[str, ...]:
    """Several names; one alone will do."""
    return (names,) if isinstance(names, str) else tuple(names)


def _one_of(what: str, given: object, known: tuple[str, ...]) -> None:
    if given not in known:
        raise InputError(f"{what} is {given!r}", f"give one of {', '.join(known)}")
