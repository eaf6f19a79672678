"""LSTM, GRU and plain recurrent layers, as torch's modules call them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tests.samples.sample import Operand, Plain, Sample

GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}
HIDDEN, INPUTS, TOKENS = 5, 6, 3


def weights(
    kind: str, *, layers: int = 1, directions: int = 1, biases: bool = True, state: bool = False
) -> dict[str, Operand]:
    """The weights of all layers, in torch's order."""
    found: dict[str, Operand] = {}
    rows = GATES[kind] * HIDDEN
    for layer in range(layers):
        for direction in range(directions):
            name, inputs = f"{'abcd'[2 * layer + direction]}", INPUTS if layer == 0 else directions * HIDDEN
            found |= {f"{name}i": (rows, inputs), f"{name}h": (rows, HIDDEN)}
            if biases:
                found |= {f"{name}p": (rows,), f"{name}q": (rows,)}
    if state:
        found["s"] = Plain((layers * directions, 2, HIDDEN))
    return found


def called(
    kind: str, *, layers: int = 1, directions: int = 1, biases: bool = True, state: bool = False
) -> Callable[..., Any]:
    """The layer on `x [b, t, i]`, from zeros or from the state that follows."""

    def run(x: Tensor, *params: Tensor) -> Any:
        params_, first = (params[:-1], params[-1]) if state else (params, None)
        if first is None:
            first = torch.zeros(layers * directions, x.shape[0], HIDDEN, dtype=x.dtype)
        start = [first, first] if kind == "lstm" else first
        op = getattr(torch, kind)
        return op(x, start, list(params_), biases, layers, 0.0, False, directions == 2, True)

    return run


def sample(name: str, kind: str, free: str, *, tracked: bool = False, **settings: Any) -> Sample:
    """A layer on examples of three tokens; `tracked` inputs come from another layer."""
    inputs: Operand = (1, TOKENS, INPUTS) if tracked else Plain((2, TOKENS, INPUTS))
    held = [f"{kind} runs over it" if tracked else f"{kind} meets channels that are fixed"]
    if settings.get("state"):
        held.append(f"{kind} begins with a state that cannot shrink")
    return Sample(
        name,
        called(kind, **settings),
        {"x": inputs} | weights(kind, **settings),
        free=re.sub(r"([a-d][ipqh]0)", rf"\1:{HIDDEN}", free),
        held=held,
        pattern="ai1",
    )


ONE = "ai0 ah0 ah1 ap0 aq0"
SAMPLES: tuple[Sample, ...] = (
    sample("lstm", "lstm", ONE),
    sample("gru", "gru", ONE),
    sample("lstm of tracked channels", "lstm", f"{ONE} ai1 x2", tracked=True),
    sample("gru of tracked channels", "gru", f"{ONE} ai1 x2", tracked=True),
    sample("rnn_tanh", "rnn_tanh", ONE),
    sample("rnn_relu without biases", "rnn_relu", "ai0 ah0 ah1", biases=False),
    sample("lstm of two layers", "lstm", f"{ONE} ci0 ci1 ch0 ch1 cp0 cq0", layers=2),
    sample("gru in both directions", "gru", f"{ONE} bi0 bh0 bh1 bp0 bq0", directions=2),
    sample(
        "lstm of two layers in both directions",
        "lstm",
        f"{ONE} bi0 bh0 bh1 bp0 bq0 ci0 ci1 ch0 ch1 cp0 cq0 di0 di1 dh0 dh1 dp0 dq0",
        layers=2,
        directions=2,
    ),
    sample("gru from a state of the user's", "gru", "", state=True),
)
