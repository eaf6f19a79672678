"""Which channels can go without changing the function: the largest set that asks nothing of what stays.

A channel is dead where, at every place that consumes it for good, it is unread by all that stays, or constant and
foldable. Assume that all unpinned channels are dead and take back those that something alive reads, until nothing
changes (the greatest fixpoint: a ring of channels that only read each other goes as a whole). Then keep what
rectangles, carriers and rounding ask for. What is kept only grows, so it ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from surgery.deciding.case import Case, Rows
from surgery.deciding.reads import Reading
from surgery.deciding.widths import ANY, Widths, share_of_most
from surgery.layout import Bools, Ids

MIN_CARRIER_RATIO = 0.1
"""A carrier's constant is at least this share of the largest constant that it stands for."""

MAX_CARRIER_DRIFT = 1e-4
"""How far a carrier's constant in the run-time precision may lie from its float64 value, relative to it."""


VARIES = "alive:"
CARRIER = "carrier:"
"""How the sentences begin that say that a channel is alive, or carries constants."""


@dataclass(frozen=True)
class Carrier:
    """At one use, in one conv group, the input position that takes over the removed constants."""

    conv_group: int
    position: int


@dataclass
class Decision:
    """What goes and what stays, and why (mutable while it is being made).

    Attributes:
        alive: Channels that stay, `[n_channels]`.
        reason: Index into `reasons` for every channel that stays, -1 for those that go, `[n_channels]`.
        reasons: The sentences.
        heard: Channels that stay and whose values matter, `[n_channels]`. One that only fills a rectangle, and that
            nobody reads, may come out as anything: what it reads itself need not stay.
        carriers: By reading (its index), the carriers there.
        looked: By reading, how much stayed on its two sides when it was last looked at.
    """

    alive: Bools
    reason: Ids
    heard: Bools
    reasons: list[str] = field(default_factory=list)
    carriers: dict[int, list[Carrier]] = field(default_factory=dict)
    looked: dict[int, tuple[int, int]] = field(default_factory=dict)

    def keep(self, channels: Ids, why: str, *, filling: bool = False) -> bool:
        """Mark channels as staying (`filling` rectangles only); True if any of them was not already."""
        new = np.unique(channels[~self.alive[channels]])
        if new.size == 0:
            return False
        self.alive[new] = True
        self.heard[new] = not filling
        self.rename(new, why)
        return True

    def listen(self, channels: Ids) -> bool:
        """Someone reads these channels: the values of those that stay matter. True if that is new for any."""
        new = channels[self.alive[channels] & ~self.heard[channels]]
        self.heard[new] = True
        return bool(new.size)

    def grew(self, index: int, reading: Reading) -> bool:
        """Whether more stays on either side of a reading than when this was last asked; what stays only grows."""
        rows = 0 if reading.rows is None else int(np.count_nonzero(self.heard[reading.rows]))
        now = rows, int(np.count_nonzero(self.alive[reading.channels]))
        before, self.looked[index] = self.looked.get(index), now
        return before != now

    def rename(self, channels: Ids, why: str) -> None:
        """Give channels another reason."""
        if channels.size:
            if why not in self.reasons:
                self.reasons.append(why)
            self.reason[channels] = self.reasons.index(why)

    def carrying(self, readings: Sequence[Reading]) -> Bools:
        """Channels that stay to carry constants; they are zeroed like those that go, `[n_channels]`."""
        found = np.zeros_like(self.alive)
        for index, carriers in self.carriers.items():
            for carrier in carriers:
                found[readings[index].channels[carrier.conv_group, carrier.position]] = True
        return found


def decide(
    case: Case, *, allowed: Bools | None = None, widths: Widths = ANY, kept: Sequence[tuple[Ids, str]] = ()
) -> Decision:
    """The channels to remove.

    Args:
        case: The coupling and what is read.
        allowed: Only these channels may go, `[n_channels]`; None allows all.
        widths: Dead channels are kept back until every group is as wide as is asked.
        kept: Channels that must stay for other reasons, each with its sentence.
    """
    coupling = case.coupling
    none = np.zeros(coupling.n_channels, bool)
    decision = Decision(none.copy(), np.full(coupling.n_channels, -1, np.int64), none.copy())
    for index in np.unique(coupling.pin_of[coupling.pin_of >= 0]):
        pin = coupling.pins[index]
        held = np.flatnonzero(coupling.pin_of == index)
        decision.keep(held, f"pinned: {pin.reason} ({case.where(pin.node)})")
    if allowed is not None:
        decision.keep(np.flatnonzero(~allowed & ~coupling.following), "not chosen")
    for channels, why in kept:
        decision.keep(channels, why)
    likeness = widths.likeness(coupling)
    decision.keep(np.flatnonzero(np.isin(coupling.group_of, likeness.whole)), likeness.why_whole)
    while True:
        _read(case, decision)
        if _fill(case, decision):
            continue
        if _carry(case, decision):
            continue
        if _agree(case, decision):
            continue
        if not _widen(case, decision, widths.multiple, likeness.alike):
            _name_causes(case, decision)
            return decision


def _name_causes(case: Case, decision: Decision) -> None:
    """Where a later place speaks for an earlier one, say the earlier: nothing changes but the sentences.

    A constant that meets the border of a padded depthwise kernel comes out varying, and the next layer would be blamed;
    a carrier that another took over for stays for another reason.
    """
    for reading in case.readings:
        if not reading.use.borders or reading.channels.shape[1] > 1:
            continue
        met = reading.constant & (reading.value != 0) & reading.read_by(decision.alive)
        met &= decision.alive[reading.channels]
        blamed = np.array([why.startswith(VARIES) for why in decision.reasons] + [False])
        channels = reading.channels[met]
        decision.rename(channels[blamed[decision.reason[channels]]], _border(case, reading))
    named = np.array([why.startswith(CARRIER) for why in decision.reasons] + [False])
    idle = named[decision.reason] & decision.alive & ~decision.carrying(case.readings)
    decision.rename(np.flatnonzero(idle), "kept, beside the carrier of its group")


def _border(case: Case, reading: Reading) -> str:
    lonely = reading.channels.shape[1] == 1
    why = "each channel meets the border of its own padded depthwise kernel" if lonely else "its weight is shared"
    return f"a constant that cannot be carried over {case.where(reading.use.node)}'s border: {why}"


def _read(case: Case, decision: Decision) -> None:
    """Take back what something alive reads and nobody can fold."""
    changed = True
    while changed:
        changed = False
        for index, reading in enumerate(case.readings):
            if not decision.grew(index, reading):
                continue
            read = reading.read_by(decision.heard)
            blocked = read & ~reading.foldable & ~decision.alive[reading.channels]
            if blocked.any():
                changed |= _take_back(case, decision, reading, blocked)
            changed |= decision.listen(reading.channels[read])


def _take_back(case: Case, decision: Decision, reading: Reading, blocked: Bools) -> bool:
    place = case.where(reading.use.node)
    varying, steady = blocked & ~reading.constant, blocked & reading.constant
    changed = decision.keep(reading.channels[varying], f"{VARIES} {place} reads it, and it varies with the input")
    if reading.use.borders:
        why = _border(case, reading)
    else:
        why = f"a constant that cannot be folded into {place}: {reading.refusal}"
    return decision.keep(reading.channels[steady], why) or changed


def _fill(case: Case, decision: Decision) -> bool:
    """Keep what rectangles ask for; True if anything was kept.

    The last rectangles come first, and what their channels read is taken back before the next is looked at: it may be
    just what that one asks for. So does what leaves no choice. That a layer needs one channel comes last, for then it
    often has one.
    """
    changed = False
    again = True
    while again:
        again = _fill_outers(case, decision) or _fill_all(case, decision, sure=True) or _fill_all(case, decision)
        changed |= again
    for index in np.flatnonzero(~np.logical_or.reduceat(decision.alive[case.layers.channels], case.layers.starts)):
        if _fill_rows(case, decision, case.layers.rows[index]):
            return True
    return changed


def _fill_all(case: Case, decision: Decision, *, sure: bool = False) -> bool:
    """Fill every rectangle, or (`sure`) its rows that need all that they had; True if anything was kept."""
    changed = False
    for rows in case.rectangles:
        if _fill_rows(case, decision, rows, sure=sure):
            _read(case, decision)
            changed = True
    return changed


def _fill_outers(case: Case, decision: Decision) -> bool:
    """A cell of a grid is there where its row and its column are; who listens to it listens to what it copies."""
    changed = False
    for copies, originals, node in case.copies:
        here = decision.alive[copies]
        why = f"kept, for a copy of it stays ({case.where(node)})"
        changed |= decision.keep(originals[here], why, filling=True)
        changed |= decision.listen(originals[here & decision.heard[copies]])
    for cells, rows, columns, node in case.outers:
        here = decision.alive[cells]
        why = f"kept, for a copy of it stays ({case.where(node)})"
        for side in (rows, columns):
            changed |= decision.keep(side[here], why, filling=True)
            changed |= decision.listen(side[here & decision.heard[cells]])
        both = decision.alive[rows] & decision.alive[columns]
        changed |= decision.keep(cells[both], f"kept, so that all copies are alike ({case.where(node)})", filling=True)
    if changed:
        _read(case, decision)
    return changed


def _fill_rows(case: Case, decision: Decision, rows: Rows, *, sure: bool = False) -> bool:
    alive = [decision.alive[channels] for channels in rows.channels]
    if all(a.all() for a in alive):
        return False
    staying = np.ones(alive[0].shape[0], bool) if rows.rows_stay else np.any([a.any(1) for a in alive], axis=0)
    changed = False
    for ids, here in zip(rows.channels, alive, strict=True):
        counts = here.sum(1)
        target = max(int(counts[staying].max(initial=0)), 1)
        need = np.where(staying, target - counts, 0)
        if sure:
            need = need * (target == here.shape[1])
        if (need > 0).any():
            gone = ~here
            picked = gone & (gone.cumsum(1) <= need[:, None])
            only_one = here.shape[0] == 1
            why = "kept, for a layer needs at least one channel" if only_one else "kept, so that all rows are as long"
            changed |= decision.keep(ids[picked], f"{why} ({case.where(rows.node)})", filling=True)
    return changed


def needs_fold(reading: Reading, alive: Bools) -> Bools:
    """Inputs that go here while something alive reads their constant other than zero, `[g, i]`."""
    needed: Bools = ~alive[reading.channels] & reading.read_by(alive) & reading.constant & (reading.value != 0)
    return needed


def _carry(case: Case, decision: Decision) -> bool:
    """Choose a carrier for every border that removed constants meet; True if a channel had to be kept for it."""
    decision.carriers.clear()
    kept = False
    for index, reading in enumerate(case.readings):
        if not reading.carries:  # what still reads a constant there only fills a rectangle, and nobody hears it
            continue
        folded = needs_fold(reading, decision.alive)
        for conv_group in np.flatnonzero(folded.any(1)):
            changed, carrier = _carrier(case, decision, index, int(conv_group), folded[conv_group])
            kept |= changed
            if carrier >= 0:
                decision.carriers.setdefault(index, []).append(Carrier(int(conv_group), carrier))
    return kept


def _carrier(case: Case, decision: Decision, index: int, conv_group: int, folded: Bools) -> tuple[bool, int]:
    """`(whether a channel had to be kept, the carrier's position)`."""
    reading = case.readings[index]
    value, constant = reading.value[conv_group], reading.constant[conv_group]
    channels = reading.channels[conv_group]
    largest = np.abs(value[folded]).max()
    run_time = case.run_time_values.get(index)
    drift = np.zeros_like(value)
    if run_time is not None:
        with np.errstate(divide="ignore", invalid="ignore"):
            drift = np.abs(run_time[conv_group] - value) / np.abs(value)
    fit = constant & (np.abs(value) >= MIN_CARRIER_RATIO * largest) & (drift <= MAX_CARRIER_DRIFT) & (value != 0)
    staying = fit & decision.alive[channels]
    if staying.any():
        best = np.flatnonzero(staying)[np.abs(value[staying]).argmax()]
        return decision.listen(channels[[best]]), int(best)
    place = case.where(reading.use.node)
    if not (fit & folded).any():
        why = f"a constant that is too uncertain in the run-time precision to be carried over {place}'s border"
        return decision.keep(channels[folded], why), -1
    best = np.flatnonzero(fit & folded)[np.abs(value[fit & folded]).argmax()]
    return decision.keep(channels[[best]], f"{CARRIER} its constant stands for all removed ones at {place}"), -1


def _agree(case: Case, decision: Decision) -> bool:
    """Folds are writes to a bias: all its readers must want the same write, else the channels stay."""
    by_slot: dict[str, list[Reading]] = {}
    for reading in case.readings:
        if reading.slot is not None:
            by_slot.setdefault(reading.slot, []).append(reading)
    changed = False
    for slot, sharing in by_slot.items():
        wanted = [needs_fold(reading, decision.alive) for reading in sharing]
        if len(sharing) < 2 or not any(w.any() for w in wanted):
            continue
        first = np.where(wanted[0], sharing[0].value, 0.0)
        same = all(
            w.shape == first.shape
            and np.array_equal(np.where(w, r.value, 0.0), first)
            and r.use.weight == sharing[0].use.weight
            for w, r in zip(wanted, sharing, strict=True)
        )
        if same:
            continue
        for reading, want in zip(sharing, wanted, strict=True):
            why = f"a constant that {slot} would have to take up differently at {case.where(reading.use.node)}"
            changed |= decision.keep(reading.channels[want], why)
    return changed


def _widen(case: Case, decision: Decision, multiple: int, alike: Sequence[Ids]) -> bool:
    """Keep dead channels back until every group's width is a multiple, and those that are to be alike are."""
    if multiple <= 1 and not alike:
        return False
    groups = case.coupling.group_of
    gone = np.flatnonzero(~decision.alive & ~case.coupling.virtual)
    n_groups = int(groups.max(initial=-1)) + 1
    width = np.bincount(groups[decision.alive], minlength=n_groups)
    counted = ~case.coupling.virtual
    alone = np.bincount(groups[decision.alive & counted], minlength=n_groups)
    more = share_of_most(alone, np.bincount(groups[counted], minlength=n_groups), alike) - alone
    need = more + -(width + more) % multiple
    for uniform in case.coupling.uniforms:
        for array in uniform.arrays:
            if array.shape[0] > 1:  # a channel kept in one row asks for others in all rows: see what they come to
                here = groups[case.coupling.channel_of[array].ravel()]
                need[here] = np.minimum(need[here], 1)
    order = np.argsort(groups[gone], kind="stable")
    gone = gone[order]
    starts = np.searchsorted(groups[gone], np.arange(n_groups))
    rank = np.arange(gone.size) - starts[groups[gone]]
    filling = gone[rank < need[groups[gone]]]
    unequal = more[groups[filling]] > 0
    changed = decision.keep(filling[unequal], "kept, so that this part is as wide in every layer", filling=True)
    why = f"kept, so that the width is a multiple of {multiple}"
    return decision.keep(filling[~unequal], why, filling=True) or changed
