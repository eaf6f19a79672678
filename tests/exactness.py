"""Our own judge of a cut, which knows nothing of the package's proof: the plan on a float64 copy, the slim model as is.

Relative errors are max|a - b| over the spread: the largest change of an output element from one input to another.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

import surgery
from surgery.analysis.graph_specs import graph_again
from surgery.cutting.cut import cut_
from surgery.masks import apply_keep_masks_, bake

BOUND_FLOAT64 = 1e-9
BOUND_FLOAT32 = 1e-5
HEALTHY = 1e-2
"""The least spread, over the largest output, at which an error would show."""

Example = Tensor | tuple[Any, ...]


@dataclass(frozen=True)
class Distance:
    """Relative errors of a slim model, the masked one's own rounding noise, and its spread over its largest output."""

    float64: float
    float32: float
    noise: float
    health: float


def redrawn(example: Example, seed: int, *, batch: int, grow: int = 0) -> tuple[Any, ...]:
    """Fresh normal values with `batch` in dim 0 and `grow` more in dims 2 and up; whole numbers are repeated."""
    generator = torch.Generator().manual_seed(seed)

    def draw(tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point():
            return tensor[:1].expand(batch, *tensor.shape[1:]).clone()
        shape = (batch, *(s if d < 1 else s + grow for d, s in enumerate(tensor.shape[1:])))
        return torch.randn(shape, generator=generator)

    args = example if isinstance(example, tuple) else (example,)
    drawn: tuple[Any, ...] = pytree.tree_map_only(Tensor, draw, args)
    return drawn


def outputs(model: nn.Module, args: tuple[Any, ...], dtype: torch.dtype) -> list[Tensor]:
    """The tensors that a model in eval mode returns, in float64."""
    fed = pytree.tree_map_only(Tensor, lambda t: t.to(dtype, copy=True) if t.is_floating_point() else t.clone(), args)
    with torch.no_grad():
        result = model(*fed)
    if hasattr(result, "__dataclass_fields__") and not isinstance(result, dict):
        result = vars(result)
    return [leaf.double() for leaf in pytree.tree_leaves(result) if isinstance(leaf, Tensor)]


def distance(
    masked: nn.Module, slim: nn.Module, slim64: nn.Module, example: Example, shapes: Iterable[tuple[int, int]]
) -> Distance:
    """The worst distance over shapes `(batch, grow)`, two fresh inputs each."""
    masked = copy.deepcopy(masked).eval()
    masked64 = copy.deepcopy(masked).double()
    slim, slim64 = copy.deepcopy(slim).eval(), copy.deepcopy(slim64).eval()
    worst64 = worst32 = noise = 0.0
    health = float("inf")
    for batch, grow in shapes:
        inputs = [redrawn(example, 100 * batch + grow + seed, batch=batch, grow=grow) for seed in (1, 2)]
        wide = [outputs(masked64, args, torch.float64) for args in inputs]
        spreads = [float((a - b).abs().max()) for a, b in zip(*wide, strict=True)]
        largest = [max(float(a.abs().max()), float(b.abs().max())) for a, b in zip(*wide, strict=True)]
        health = min(health, *(s / m if m else 0.0 for s, m in zip(spreads, largest, strict=True)))
        spreads = [s or m or 1.0 for s, m in zip(spreads, largest, strict=True)]
        for args, truth in zip(inputs, wide, strict=True):
            runs = [
                outputs(slim64, args, torch.float64),
                outputs(slim, args, torch.float32),
                outputs(masked, args, torch.float32),
            ]
            errors = []
            for run in runs:
                assert [o.shape for o in run] == [o.shape for o in truth], "the outputs have other shapes"
                errors.append(max(float((a - b).abs().max()) / s for a, b, s in zip(run, truth, spreads, strict=True)))
            worst64, noise = max(worst64, errors[0]), max(noise, errors[2])
            own = zip(runs[1], runs[2], spreads, strict=True)
            worst32 = max(worst32, *(float((a - b).abs().max()) / s for a, b, s in own))
    return Distance(worst64, worst32, noise, health)


def assert_exact(
    masked: nn.Module,
    plan: surgery.Plan,
    slim: nn.Module,
    example: Example,
    *,
    shapes: Iterable[tuple[int, int]] = ((1, 0), (3, 0), (2, 5)),
    healthy: float = HEALTHY,
) -> Distance:
    """The slim model is the masked one: in float64 to 1e-9 of the spread, in float32 to rounding.

    Args:
        masked: The masked model.
        plan: What was cut; it is applied to a float64 copy.
        slim: What came out.
        example: The inputs that it was made with.
        shapes: `(batch, grow)`: fresh inputs with that batch, and so much more in the dims from 2 on.
        healthy: The least spread over the largest output that the model must show for the test to mean anything.
    """
    plain = bake(masked)  # what is baked is baked in the model's own precision
    whole = copy.deepcopy(plain)
    slim64 = cut_((whole if plan.graph is None else graph_again(whole, plan.graph)).double(), plan)
    found = distance(plain, slim, slim64, example, shapes)
    assert found.health >= healthy, f"a test that could not fail: {found}"
    assert found.float64 <= BOUND_FLOAT64, found
    assert found.float32 <= max(BOUND_FLOAT32, 4 * found.noise), found
    return found


def assert_plain(model: nn.Module, slim: nn.Module) -> None:
    """The user's own classes, module by module, and none of ours."""
    assert type(slim) is type(model)
    assert not isinstance(slim, fx.GraphModule)
    kinds = {name: type(module) for name, module in slim.named_modules()}
    assert kinds == {name: type(module) for name, module in bake(model).named_modules()}
    assert not [name for name, kind in kinds.items() if kind.__module__.startswith("surgery")]


def fingerprint(model: nn.Module) -> str:
    """Every byte of every tensor, every flag, number and hook of a model."""
    digest = hashlib.sha256()
    for path, module in model.named_modules(remove_duplicate=False):
        plain = {k: v for k, v in vars(module).items() if isinstance(v, int | float | str | tuple | list)}
        hooks = [len(module._forward_hooks), len(module._forward_pre_hooks), len(module._backward_hooks)]
        digest.update(repr((path, type(module).__name__, sorted(plain.items(), key=str), hooks)).encode())
        for name, tensor in [*module._parameters.items(), *module._buffers.items()]:
            if tensor is None:
                continue
            raw = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
            digest.update(
                repr((name, id(tensor), tuple(tensor.shape), tensor.dtype, tensor.requires_grad)).encode() + raw
            )
    return digest.hexdigest()


def parameters(model: nn.Module) -> int:
    """Elements of all parameters, shared ones once."""
    return sum(p.numel() for p in model.parameters())


def shrunk(model: nn.Module, example: Example, *, kind: str = "class", **options: Any) -> surgery.Result:
    """Shrink without the package's own proof, and judge it by ours; the given model must not have changed.

    Without a proof nothing can be put back: a fault shows here, not as a channel too many. `kind` is what must come
    out: the model's own "class" or its captured "graph".
    """
    judge = {key: options.pop(key) for key in ("shapes", "healthy") if key in options}
    before = fingerprint(model)
    result = surgery.shrink(model, example, prove=False, **options)
    assert fingerprint(model) == before, "the user's model was changed"
    if kind == "class":
        assert_plain(model, result.model)
    else:
        assert type(result.model) is not type(model)
    assert result.kind == kind
    masked = bake(model)
    if "keep_masks" in options:
        apply_keep_masks_(masked, options["keep_masks"])
    again = result.plan.mask(masked)
    assert not [n for n, t in again.state_dict().items() if not torch.equal(t, masked.state_dict()[n])], (
        "mask is no mask"
    )
    assert_exact(masked, result.plan, result.model, example, **judge)
    return result


def chosen(
    model: nn.Module, example: Example, *, keep_ratio: float = 0.5, **judge: Any
) -> tuple[surgery.Plan, nn.Module]:
    """Choose, mask, shrink and judge: `(the plan, the slim model)`. What was planned must be what shrink removes."""
    plan = surgery.choose(model, example, keep_ratio=keep_ratio)
    masked = plan.mask(model)
    result = shrunk(masked, example, **judge)
    kept = {(axis.name, axis.dim): axis.keep for axis in plan.axes}
    assert {(axis.name, axis.dim): axis.keep for axis in result.plan.axes} == kept, "shrink(mask(m)) is not apply(m)"
    return plan, result.model
