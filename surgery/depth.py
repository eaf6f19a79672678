"""Which blocks of a residual net go as a whole, and what is left without them."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call
from torch.utils import _pytree as pytree

from surgery.analysis.capture import evaluating
from surgery.analysis.recording import opened
from surgery.batches import Batch
from surgery.caches import is_cache
from surgery.cutting.depth import Shortened, shortened
from surgery.cutting.twins import sharing_copy
from surgery.deciding.blocks import Block, blocks_of, silencing
from surgery.deciding.criteria import Feed
from surgery.deciding.pick import CLOSE, Floats
from surgery.deciding.study import Study
from surgery.errors import InputError
from surgery.tensors import named_tensors

WAYS = "give a whole number of blocks, or a share of them above 0 and at most 1 such as 0.25"


def check_depth(depth: float) -> None:
    """Refuse what is no number of blocks.

    Raises:
        InputError: So it is.
    """
    whole = isinstance(depth, int)
    if isinstance(depth, bool) or not isinstance(depth, int | float) or not (depth >= 0 if whole else 0 < depth <= 1):
        raise InputError(f"depth is {depth!r}", WAYS)


def less_deep(study: Study, depth: float, feed: Feed, protect: Sequence[str] = ()) -> Shortened:
    """What is left without the blocks that matter least.

    Args:
        study: Of the dense model.
        depth: How many blocks go, or (a float) which share of them, rounded down.
        feed: The user's data, by which blocks are judged where there is any (see `block_scores`).
        protect: Names of modules and tensors that stay, `*` for any text.

    Raises:
        InputError: There are no blocks, or fewer.
    """
    kind = type(study.model).__name__
    blocks = blocks_of(study)
    if not blocks:
        fact = f"{kind} has no residual block that can go as a whole"
        raise InputError(fact, "leave depth out: a block adds to a value what it computes of it, and to nothing else")
    held = _held(study, protect)
    free = [block for block in blocks if not _touches(block, held)]
    count = depth if isinstance(depth, int) else int(len(blocks) * depth + CLOSE)
    if count > len(free):
        names = ", ".join(block.name for block in free[:5]) + (", ..." if len(free) > 5 else "")
        protected = f", {len(blocks) - len(free)} more are protected" if len(free) < len(blocks) else ""
        fact = f"depth is {depth}, and {kind} has {len(free)} blocks that can go ({names or 'none'}){protected}"
        raise InputError(fact, f"ask for at most {len(free)}")
    scores = block_scores(study, free, feed) if count else np.zeros(len(free))
    order = [free[index] for index in np.argsort(scores, kind="stable")]
    refused: set[str] = set()
    while True:
        chosen = [block for block in order if block.name not in refused][:count]
        if len(chosen) < count:
            fact = f"{count - len(chosen)} of {count} blocks of {kind} cannot go: {', '.join(sorted(refused))}"
            raise InputError(fact, f"ask for at most {len(chosen)}, or protect what cannot go")
        left = without(study, chosen, held)
        gone = {bypass.module for bypass in left.bypasses}
        stuck = {block.name for block in chosen if not all(_within(path, gone) for path in block.modules)}
        if not stuck:
            return left
        refused |= stuck


def without(study: Study, blocks: Sequence[Block], held: AbstractSet[str] = frozenset()) -> Shortened:
    """What is left without some blocks: the study of it, over the tensors of the model, and how it is made.

    `without(study, blocks).study.model` can be run and measured; its cuts become cuts of the whole model by `told`.

    Args:
        study: Of the dense model.
        blocks: Of `blocks_of`.
        held: Modules and tensors that stay, even if nothing would miss them.
    """
    model = sharing_copy(study.model)
    tensors = named_tensors(model)
    for zeros in silencing(study, blocks):
        tensors[zeros.name].data = torch.zeros_like(tensors[zeros.name])
    paths = [path for path, _ in model.named_modules() if any(_touch(path, name) for name in held)]
    return shortened(study.with_weights_of(model), dict.fromkeys(paths, "it is protected"))


def block_scores(study: Study, blocks: Sequence[Block], feed: Feed) -> Floats:
    """What a block is worth, `[n_blocks]`; bigger is kept.

    With data, how much the model's outputs change without it: the norm of the change over that of the outputs, over all
    samples. Each block is left out by itself, as Kim et al. do (2024, Shortened LLaMA), who look at the perplexity; the
    outputs ask for no labels. Without data, how large the weights are that write what it adds: the root of their mean
    square, over that of all blocks whose last weights are of the same kind.
    """
    if feed.data is None:
        return _sizes(study, blocks)
    changed, total = np.zeros(len(blocks)), 0.0
    own = named_tensors(study.model)
    silent = [{name: torch.zeros_like(own[name]) for name in block.writes} for block in blocks]
    with evaluating(study.model), torch.no_grad():
        for batch in feed.batches(study, "of blocks"):
            whole = _outputs(batch.run(study.model))
            total += sum(float(one.square().sum()) for one in whole)
            for index, zeros in enumerate(silent):
                there = _outputs(_run(study, batch, zeros))
                changed[index] += sum(float((a - b).square().sum()) for a, b in zip(there, whole, strict=True))
    if not np.isfinite(changed).all() or not np.isfinite(total):
        raise InputError(
            f"the outputs of {type(study.model).__name__} on the data are not finite", "leave such samples out"
        )
    scores: Floats = np.sqrt(changed / max(total, np.finfo(np.float64).tiny))
    return scores


def _run(study: Study, batch: Batch, zeros: dict[str, Tensor]) -> object:
    inputs = batch.inputs.map(torch.clone)
    return functional_call(study.model, zeros, inputs.args, dict(inputs.kwargs))


def _outputs(output: object) -> list[Tensor]:
    """The floating-point tensors of an output, in float64; what a cache keeps is not among them."""
    leaves = pytree.tree_leaves(opened(output), is_leaf=is_cache)
    return [leaf.double() for leaf in leaves if isinstance(leaf, Tensor) and leaf.is_floating_point()]


def _sizes(study: Study, blocks: Sequence[Block]) -> Floats:
    """The root of the mean square of what writes each block, over that of its kind (by the rank of the weights)."""
    tensors = study.program.tensors
    sizes, kinds = np.zeros(len(blocks)), np.zeros(len(blocks), np.int64)
    for index, block in enumerate(blocks):
        weights = [tensors[name].detach() for name in block.writes]
        count = sum(weight.numel() for weight in weights)
        sizes[index] = (sum(float(weight.double().square().sum()) for weight in weights) / max(count, 1)) ** 0.5
        kinds[index] = max(weight.dim() for weight in weights)
    for kind in np.unique(kinds):
        mean = sizes[kinds == kind].mean()
        sizes[kinds == kind] /= mean if mean > 0 else 1.0
    return sizes


def _held(study: Study, protect: Sequence[str]) -> frozenset[str]:
    """The tensors and modules that are named.

    Raises:
        InputError: A name that nothing has.
    """
    names = [protect] if isinstance(protect, str) else list(protect)
    modules = [path for path, _ in study.model.named_modules(remove_duplicate=False) if path]
    every = [*modules, *named_tensors(study.model)]
    found: set[str] = set()
    for name in names:
        matched = fnmatch.filter(every, name)
        if not matched:
            close = difflib.get_close_matches(name, every, 3)
            hint = f"did you mean {' or '.join(close)}?" if close else f"it has {', '.join(modules[:5])}"
            raise InputError(f"protect names {name!r}, which {type(study.model).__name__} has not", hint)
        found.update(matched)
    return frozenset(found)


def _touches(block: Block, held: frozenset[str]) -> bool:
    """Whether anything that is named lies in a block or around it."""
    return any(_touch(path, name) for path in block.modules for name in held)


def _touch(path: str, name: str) -> bool:
    """Whether one lies in the other."""
    return _within(path, [name]) or _within(name, [path])


def _within(path: str, places: Iterable[str]) -> bool:
    return any(path == place or path.startswith(f"{place}.") for place in places)
