"""Widths that are alike in every layer; of a model of transformers, such as its config can say."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from torch import nn

from surgery.cutting.operate import Operation
from surgery.deciding.cuts import Cuts
from surgery.deciding.widths import Widths, same_part
from surgery.inputs import Inputs
from surgery.plans import Plan
from surgery.proof.prove import verify
from surgery.sources.configs import Configured, Key, quiet

EXACT, ROUNDING = 1e-9, 1e-6
"""How far two models of the same weights may differ in float64, and in their own precision where that is all."""


def uniform_widths(
    model: nn.Module,
    inputs: Inputs,
    round_to: int,
    attempt: Callable[[Widths], Operation[Plan]],
    *,
    plain_too: bool = True,
) -> Widths:
    """What to ask of the widths, so that they come out alike.

    For a model of transformers the config has to say them, and the class to compute the same with that config. It need
    not: a model may compute more from a number than sizes (the scale of an embedding), and a number may stand for parts
    that were not cut in the same way. Then the number that stands for most is left as it is, and it is tried again.

    Args:
        model: The model before the cut.
        inputs: What it is compared on.
        round_to: Widths are multiples of this.
        attempt: The operation with some widths.
        plain_too: Whether a config has to say them: none says that some layers are missing.
    """
    configured = Configured.of(model) if plain_too else None
    if configured is None:
        return Widths(round_to, same_part)
    configured = configured.spoken()
    without: set[Key] = set()
    while True:
        widths = Widths(round_to, configured.rule(without))
        done = attempt(widths)
        if done.cuts.empty or plain(configured, done.slim, done.cuts, inputs) is not None:
            return widths
        sized = configured.sized_by
        cut = [sized.get((axis.name, axis.dim), frozenset()) for axis in done.cuts.axes if axis.removed]
        suspects = {key for keys in cut for key in keys} - without
        if not suspects:
            return widths
        without.add(max(suspects, key=lambda key: (sum(key in keys for keys in sized.values()), str(key))))


def plain(configured: Configured, slim: nn.Module, cuts: Cuts, inputs: Inputs) -> nn.Module | None:
    """The model of the model's own class, with another config, that is the slim one and shares its tensors; or None."""
    floats = {edit.old: edit.new for edit in cuts.edits if isinstance(edit.old, float)}
    for config in configured.fitting(slim, floats):
        try:
            made = filled(configured.with_(config), slim)
        except Exception:  # the class refuses it after all, in words of its own
            continue
        if same(slim, made, inputs):
            return made
    return None


def same(slim: nn.Module, other: nn.Module, inputs: Inputs) -> bool:
    """Whether two models of the same weights are one function: no rounding of parameters excuses a difference."""
    proof = verify(slim, other, inputs.args, inputs.kwargs)
    wide, own = proof.max_rel_error_float64, proof.max_rel_error
    if wide is not None:
        return proof.passed and wide <= EXACT
    return proof.passed and own is not None and own <= ROUNDING  # not every model runs in float64


def filled(configured: Configured, slim: nn.Module) -> nn.Module:
    """A model of the config with the slim one's tensors, which it shares.

    Raises:
        Exception: The class refuses the config, or the tensors do not fit; it may be any.
    """
    with quiet():
        made: Any = configured.kind(copy.deepcopy(configured.config))
    made.load_state_dict(slim.state_dict(), assign=True)
    made.tie_weights()
    model: nn.Module = made.train(slim.training)
    return model
