"""Steps: the widths that every group can have, one below the other, and the order in which all groups go down."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from surgery.coupling import Coupling
from surgery.deciding.pick import CLOSE, Floats, Ranking
from surgery.errors import InputError
from surgery.layout import Bools, Ids
from surgery.tensors import named_tensors


@dataclass(frozen=True)
class Limits:
    """What the widths of groups have to be.

    Attributes:
        round_to: A multiple of this, or as they were.
        min_keep: At least so many channels (a whole number), or such a share of them (a fraction).
    """

    round_to: int = 1
    min_keep: int | float = 1

    def __post_init__(self) -> None:
        if not isinstance(self.round_to, int) or self.round_to < 1:
            raise InputError(f"round_to is {self.round_to}", "give a whole number of channels, at least 1")
        whole = isinstance(self.min_keep, int)
        if isinstance(self.min_keep, bool) or not (self.min_keep >= 1 if whole else 0 < self.min_keep <= 1):
            raise InputError(
                f"min_keep is {self.min_keep}",
                "give a whole number of channels per group, at least 1, or a share of them above 0 and at most 1",
            )

    def least(self, sizes: Ids) -> Ids:
        """The fewest channels of groups of these sizes, as `min_keep` says, `[n_groups]`."""
        share = isinstance(self.min_keep, float)
        wanted = np.ceil(sizes * self.min_keep - CLOSE) if share else np.full(sizes.shape, self.min_keep)
        least: Ids = np.minimum(np.maximum(wanted.astype(np.int64), 1), sizes)
        return least

    def shares(self, sizes: Ids, keep_ratio: float) -> Floats:
        """The share of each group that goes where `keep_ratio` of it is to stay, `[n_groups]`."""
        keep = np.maximum(np.ceil(sizes * keep_ratio - CLOSE).astype(np.int64), self.least(sizes))
        keep = np.minimum(-(-keep // self.round_to) * self.round_to, sizes)
        shares: Floats = (sizes - keep) / np.maximum(sizes, 1)
        return shares


@dataclass(frozen=True)
class Steps:
    """Every narrowing of a group that there can be, in the order in which they are taken.

    Attributes:
        group: Which group becomes narrower, `[n_steps]`.
        share: The share of it that is gone then, `[n_steps]`.
        channels: How many channels fewer it has then, `[n_steps]`.
        sizes: Channels of every group, `[n_groups]`.
        stops: After how many steps to look: each number of them, or only where all groups have come as far.
    """

    group: Ids
    share: Floats
    channels: Ids
    sizes: Ids
    stops: Ids

    @staticmethod
    def of(ranking: Ranking, limits: Limits, *, global_: bool = False, together: bool = False) -> Steps:
        """The steps of a ranking.

        Args:
            ranking: What can be picked.
            limits: What the widths have to be.
            global_: One order over all groups, by score; otherwise all groups narrow alike, each by the same share.
            together: Stop only where all groups have given up the same share.
        """
        least = limits.least(ranking.sizes)
        found: list[tuple[int, float, int, float]] = []
        for group in np.unique(ranking.group):
            inside = ranking.group == group
            shares, at = np.unique(ranking.share[inside], return_inverse=True)
            widths = np.cumsum(np.bincount(at, ranking.width[inside]))
            scores = np.bincount(at, ranking.score[inside]) / np.bincount(at)
            worst, gone = -np.inf, 0
            for share, width, score in zip(shares, widths, scores, strict=True):
                worst = max(worst, float(score))  # what comes after the worst of a group goes after it
                left = int(ranking.sizes[group] - width)
                if left >= least[group] and left % limits.round_to == 0:
                    found.append((int(group), float(share), int(width) - gone, worst))
                    gone = int(width)
        columns = np.array(found, np.float64).reshape(-1, 4).T
        alike = np.round(columns[1], 9)  # shares of groups of other sizes that are the same
        order = np.lexsort((columns[1], columns[3]) if global_ else (columns[3], alike))
        ends = np.append(np.diff(alike[order]) != 0, True) if together and found else np.ones(len(found), bool)
        return Steps(
            group=columns[0, order].astype(np.int64),
            share=columns[1, order],
            channels=columns[2, order].astype(np.int64),
            sizes=ranking.sizes,
            stops=np.append(0, np.flatnonzero(ends) + 1),
        )

    def shares(self, count: int) -> Floats:
        """The share of every group that is gone after so many steps, `[n_groups]`."""
        shares = np.zeros(self.sizes.size)
        np.maximum.at(shares, self.group[:count], self.share[:count])
        return shares

    def back(self, shares: Floats, group: int) -> Floats:
        """The shares where one group takes back its last step."""
        own = self.share[self.group == group]
        before = own[own < shares[group] - CLOSE]
        changed = shares.copy()
        changed[group] = before.max(initial=0.0)
        return changed


def protected(model: nn.Module, coupling: Coupling, names: Sequence[str]) -> Bools:
    """The channels of what is named, so that its tensors keep their shapes, `[n_channels]`.

    Args:
        model: The model.
        coupling: Its coupling.
        names: Of modules or tensors; `*`, `?` and `[...]` stand for any text, any sign, any of some signs.

    Raises:
        InputError: A name that nothing has.
    """
    tensors = named_tensors(model)
    places = {(id(tensors[name])): name for name in {key[0] for key in coupling.axes}}
    held = np.zeros(coupling.n_channels, bool)
    canonical = {places.get(id(tensors[name])) for name in named_by(names, model, list(tensors))}
    for axis in coupling.axes.values():
        if axis.name in canonical:
            held[coupling.channel_of[axis.ids]] = True
    return held


def named_by(names: Sequence[str], model: nn.Module, tensors: Sequence[str]) -> list[str]:
    """Which of some tensors are meant, by their own names or by those of modules that hold them.

    Args:
        names: As for `protected`.
        model: For the names of its modules.
        tensors: The names of its tensors.

    Raises:
        InputError: A name that nothing has.
    """
    modules = [path for path, _ in model.named_modules(remove_duplicate=False) if path]
    found: list[str] = []
    for name in [names] if isinstance(names, str) else names:
        paths = fnmatch.filter(modules, name)
        matched = [other for other in tensors if fnmatch.fnmatchcase(other, name)]
        matched += [other for other in tensors if any(other.startswith(f"{path}.") for path in paths)]
        if not matched and not paths:
            close = difflib.get_close_matches(name, [*modules, *tensors], 3)
            hint = (
                f"did you mean {' or '.join(close)}?" if close else f"it has {', '.join(modules[:5]) or 'no modules'}"
            )
            raise InputError(f"protect names {name!r}, which {type(model).__name__} has not", hint)
        found += matched
    return found
