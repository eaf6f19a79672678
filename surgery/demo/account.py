"""What became of every masked filter: gone, or still here with the reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from surgery.plans import Plan

PLAIN_WORDS = {
    "alive:": (
        "share their channel with a living filter of another layer: masks made layer by layer do not agree on which "
        "channels to drop"
    ),
    "a constant that cannot be carried": (
        "leave a constant behind (BatchNorm's shift) that a padded depthwise kernel changes at the border"
    ),
    "carrier:": (
        "carry the constant that the removed ones still added (BatchNorm's shift), one channel for a whole layer"
    ),
    "kept, so that the width is a multiple": (
        "could go, but fill widths up to a multiple of 8 (round_to=8), which processors are fast with"
    ),
}
"""How the plan's reasons begin, and what they mean here. One that is not listed is printed as the plan gives it."""


@dataclass(frozen=True)
class Layer:
    """One masked convolution.

    Attributes:
        name: Its path in the model.
        filters: How many it had.
        masked: How many of them were masked.
        kept: How many filters it has now.
        masked_gone: How many of the masked ones are gone.
        stayed: Why the other masked ones are still here, in the plan's words, with their numbers.
    """

    name: str
    filters: int
    masked: int
    kept: int
    masked_gone: int
    stayed: Mapping[str, int]


def layers_of(model: nn.Module, plan: Plan) -> tuple[Layer, ...]:
    """Every layer of a model that `torch.nn.utils.prune` masked, with its hooks still in place."""
    return tuple(
        _layer(name, module.weight_mask, plan)
        for name, module in model.named_modules()
        if isinstance(getattr(module, "weight_mask", None), Tensor)
    )


def _layer(name: str, weight_mask: Tensor, plan: Plan) -> Layer:
    masked = (weight_mask.flatten(1) == 0).all(1).nonzero().flatten().tolist()
    axis = plan.axis(f"{name}.weight")
    kept = set(axis.keep)
    staying = [position for position in masked if position in kept]
    codes = [axis.why[position if len(axis.why) > 1 else 0] for position in staying]
    return Layer(
        name=name,
        filters=axis.size,
        masked=len(masked),
        kept=len(kept),
        masked_gone=len(masked) - len(staying),
        stayed=dict(Counter(plan.reasons[code] for code in codes)),
    )


def reasons(layers: Sequence[Layer]) -> list[tuple[int, str, list[str]]]:
    """`(filters, why, layers)` for every kind of reason that masked filters stayed for, the most frequent first."""
    counts: Counter[str] = Counter()
    where: dict[str, list[str]] = {}
    for layer in layers:
        for reason, count in layer.stayed.items():
            words = next((plain for start, plain in PLAIN_WORDS.items() if reason.startswith(start)), reason)
            counts[words] += count
            if layer.name not in where.setdefault(words, []):
                where[words].append(layer.name)
    return [(count, words, where[words]) for words, count in counts.most_common()]
