"""torch-pruning's criteria, and any that is written for its `Importance`, on our groups."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from surgery.batches import Batch, batches
from surgery.deciding.criteria.fisher import fisher_
from surgery.deciding.criteria.gradients import Loss, differentiable, mean_gradients_, mean_squares_, squares_by_
from surgery.deciding.criteria.groups import Scored, groups_of
from surgery.deciding.pick import Floats
from surgery.deciding.study import Study
from surgery.errors import InputError, first_line
from surgery.iterating import length_of
from surgery.progress import track

PEERS = {
    "bn_scale": "BNScaleImportance",
    "fpgm": "FPGMImportance",
    "hessian": "HessianImportance",
    "lamp": "LAMPImportance",
    "obdc": "OBDCImportance",
    "random": "RandomImportance",
    "taylor": "TaylorImportance",
}
"""Names of torch-pruning's criteria: Liu et al. 2017 (network slimming), He et al. 2019 (geometric median), LeCun et
al. 1989 (optimal brain damage, by squares of gradients), Lee et al. 2021 (LAMP), Wang et al. 2019 (EigenDamage's
OBD-C), and Molchanov et al. 2019 (first-order Taylor)."""

WANTED = "pass data=, a loader of batches, and loss= where the model's output holds none"


@dataclass(frozen=True)
class Feed:
    """What data-driven criteria look at.

    Attributes:
        data: The user's loader (see `surgery.batches.batches`); None where there is none.
        loss: A function of (outputs, targets); None: what the model's output calls its loss.
        seed: Of what is drawn at random.
    """

    data: Any = None
    loss: Loss | None = None
    seed: int = 0

    def batches(self, study: Study, name: str) -> Iterator[Batch]:
        """The data as calls of the model, with a bar.

        Raises:
            InputError: There is none.
        """
        if self.data is None:
            raise InputError(f"importance {name!r} looks at data, and none was given", WANTED)
        return track(batches(self.data, study.model, study.inputs), f"importance {name}", length_of(self.data))


NOTHING = Feed()
"""No data."""


def is_peer(importance: Any) -> bool:
    """Whether this is a criterion written for torch-pruning's `Importance`."""
    from torch_pruning.pruner.importance import Importance

    return isinstance(importance, Importance)


def named_scores(study: Study, name: str, feed: Feed) -> Floats:
    """As `peer_scores`, of a criterion in `PEERS`; Taylor counts the gains of BatchNorms, which its class misses."""
    from torch_pruning.pruner import function, importance

    criterion = getattr(importance, PEERS[name])()
    # its branch for BatchNorm asks for the function of GroupNorm (torch-pruning 1.6.1), and is never reached
    mended = {function.prune_batchnorm_out_channels: function.prune_groupnorm_out_channels} if name == "taylor" else {}
    return peer_scores(study, criterion, feed, name=name, handlers=mended)


def peer_scores(
    study: Study, criterion: Any, feed: Feed, *, name: str = "", handlers: dict[Any, Any] | None = None
) -> Floats:
    """One score per channel, `[n_channels]`; NaN for groups that the criterion has no opinion of.

    With data (and a loss, or for criteria that surely read them) the parameters have gradients when the criterion is
    called: those of the mean loss over all samples; for Hessian criteria the mean of their squares, sample by sample.

    Args:
        study: The model, which is run, and its coupling.
        criterion: An instance of torch-pruning's `Importance`.
        feed: The data.
        name: What the user calls it.
        handlers: Functions to show it in the place of others.

    Raises:
        InputError: It fails, or scores with what is no number, or needs data that was not given.
    """
    name = name or type(criterion).__name__
    scores = np.full(study.coupling.n_channels, np.nan)
    with _prepared(study, criterion, feed, name, handlers) as groups, _seeded(feed.seed):
        for scored in groups:
            found = _asked(criterion, scored, name)
            if found is not None:
                scores[scored.channels] = found
    return scores


@contextmanager
def _prepared(
    study: Study, criterion: Any, feed: Feed, name: str, handlers: dict[Any, Any] | None
) -> Iterator[Iterable[Scored]]:
    """Run the data as the criterion needs it; yields the groups as it is to see them. No gradient stays behind."""
    from torch_pruning.pruner import importance

    curvature = isinstance(criterion, importance.OBDCImportance)
    squares = isinstance(criterion, importance.GroupHessianImportance)
    needs = curvature or squares or isinstance(criterion, importance.GroupTaylorImportance)
    # whether one of the user's own reads gradients nobody can tell: it gets them where there is a loss
    weights = importance.GroupMagnitudeImportance, importance.FPGMImportance, importance.RandomImportance
    asked = (
        feed.data is not None
        and feed.loss is not None
        and type(criterion).__call__ not in [kind.__call__ for kind in weights]
    )
    if not needs and not asked:
        yield groups_of(study, handlers)
        return
    with differentiable(study.model) as parameters:
        seen = feed.batches(study, name)
        if curvature:
            yield map(fisher_(criterion, study.model, seen, feed.loss), groups_of(study, handlers))
            return
        if not squares:
            mean_gradients_(study.model, parameters, seen, feed.loss)
        elif type(criterion).accumulate_grad is importance.GroupHessianImportance.accumulate_grad:
            # its own keeps the last sample only (torch-pruning 1.6.1)
            mean_squares_(study.model, parameters, seen, feed.loss)
        else:
            squares_by_(criterion, study.model, seen, feed.loss)
        yield groups_of(study, handlers, graded=True)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Draws from torch's generator are those of a seed inside, and as if nothing had been drawn afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _asked(criterion: Any, scored: Scored, name: str) -> Floats | None:
    """The criterion's scores of a group, `[n]`; None where it has none: no layer of its kind."""
    try:
        found = criterion(scored.group)
    except Exception as error:
        fact = f"importance {name!r} fails on the group of {scored.name}: {first_line(error)}"
        raise InputError(fact, "if it reads gradients, pass data= and loss=; else choose another") from error
    if found is None or (isinstance(found, Sequence) and not len(found)):
        return None
    n = scored.channels.size
    if not isinstance(found, Tensor) or found.dim() != 1 or found.numel() < n:
        shape = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
        fact = f"importance {name!r} gave the group of {scored.name} {shape}"
        raise InputError(fact, f"return a tensor of one score per channel: [{n}]")
    scores: Floats = found.detach()[:n].double().cpu().numpy()
    if np.isnan(scores).all():  # nothing but zeros, over their mean: nothing is lost with any of them
        return np.zeros(n)
    if not np.isfinite(scores).all():
        raise InputError(f"importance {name!r} gave the group of {scored.name} scores that are not finite", "mend it")
    return scores
