"""The user's data as every process trains on it: its share of each batch, in an order that can be had again."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, DistributedSampler, IterableDataset

from surgery.batches import Batch, batches, no_items
from surgery.errors import InputError
from surgery.fitting import chance
from surgery.fitting.examples import example_of
from surgery.fitting.ranks import Ranks
from surgery.inputs import Inputs
from surgery.iterating import check_data, is_one, items, length_of
from surgery.progress import stage

ORDER = -1
"""In seeds, in the place of the number of a process: what all processes draw alike."""


@dataclass(frozen=True)
class Share:
    """What one process does of a batch.

    Attributes:
        batch: Its samples.
        weight: Their share of the samples of the whole optimizer step; 0 where the batch had none for this process,
            which then runs all of it for nothing, so that all processes run.
    """

    batch: Batch
    weight: float


@dataclass(frozen=True)
class Step:
    """What one process does in one optimizer step: of every batch its share; and how many samples all do together."""

    shares: tuple[Share, ...]
    size: int


class Feed:
    """The data, epoch by epoch. The batches are those of the user, whatever the number of processes.

    Of a DataLoader over a data set with indices, every process loads its part of every batch; of anything else (a list,
    a stream) it reads all and takes its rows. The order of an epoch follows from the seed, the round and the epoch.

    Raises:
        InputError: The data cannot be read, or cannot be read again for the next epoch.
    """

    def __init__(self, data: Any, model: nn.Module, ranks: Ranks, *, seed: int, accumulate: int) -> None:
        check_data(data)
        self.data, self.model, self.ranks, self.seed, self.accumulate = data, model, ranks, seed, accumulate
        self.loader = data if _indexed(data) else None
        self._refuse()
        with chance.kept_apart():
            self.batches = self._counted()
        self.steps = -(-self.batches // accumulate)
        """Optimizer steps of an epoch."""

    def example(self, lossless: bool) -> Inputs:
        """A call of the model like those that are to come; see `example_of`.

        Raises:
            InputError: The data is empty or fails, or the first item holds no input.
        """
        with chance.kept_apart():
            self._seed(0, 0, ORDER)
            reader: Any = self.data
            if self.loader is not None:
                reader = self._read_by(self.loader, [self._order(0, 0)[0]], self.loader.generator)
            for item in items(reader):
                return example_of(item, self.model, lossless)
        raise no_items()

    def epoch(self, round: int, epoch: int, example: Inputs, start: int = 0) -> Iterator[Step]:
        """The optimizer steps of an epoch from one on, each as its batches.

        Args:
            round, epoch: Which, from 0 on.
            example: As for `surgery.batches.batches`.
            start: The first step to give. The generators of random numbers are then as at the beginning of the epoch.

        Raises:
            InputError: As `batches`; or the data has another number of batches than before.
        """
        if self.loader is None:
            pieces = self._rows(round, epoch, example, start * self.accumulate)
        else:
            pieces = self._loaded(self.loader, round, epoch, example, start * self.accumulate)
        for step in range(start, self.steps):
            group = list(itertools.islice(pieces, min(self.accumulate, self.batches - step * self.accumulate)))
            if step * self.accumulate + len(group) != min((step + 1) * self.accumulate, self.batches):
                raise self._other(step * self.accumulate + len(group), epoch)
            if step == self.steps - 1 and next(pieces, None) is not None:
                raise self._other(self.batches + 1, epoch)
            whole = sum(size for _, _, size in group)
            yield Step(tuple(Share(batch, own / whole) for batch, own, _ in group), whole)

    def _other(self, found: int, epoch: int) -> InputError:
        fact = f"the data gave {found} batches in epoch {epoch + 1}, and {self.batches} when they were counted"
        return InputError(fact, "give data with the same number of batches in every epoch")

    def _refuse(self) -> None:
        """What would be read wrongly is refused before anything is read."""
        data, many = self.data, self.ranks.count > 1
        if not is_one(data) and hasattr(data, "__next__"):
            fact = f"the data is a {type(data).__name__}, which can be read once only"
            raise InputError(fact, "pass a DataLoader, a list, or a function that returns the batches anew")
        if isinstance(data, Dataset):
            fact = f"the data is a {type(data).__name__}, whose items are single samples"
            raise InputError(fact, "wrap it: torch.utils.data.DataLoader(data, batch_size=32, shuffle=True)")
        if many and type(data).__module__.partition(".")[0] == "accelerate":
            raise InputError("the DataLoader was prepared by an Accelerator", "pass the one that it was made from")
        samplers = [getattr(data, "sampler", None), getattr(getattr(data, "batch_sampler", None), "sampler", None)]
        if any(isinstance(one, DistributedSampler) for one in samplers):
            way_out = "leave the sampler out: every process gets its part of each batch without it"
            raise InputError("the DataLoader has a DistributedSampler, which leaves samples out", way_out)

    def _counted(self) -> int:
        """How many batches an epoch has."""
        count = length_of(self.data)
        if count is None:
            self._seed(0, 0, ORDER)
            with stage("counting batches"):
                if self.loader is not None:
                    count = len(self._order(0, 0))
                else:
                    count = sum(1 for _ in batches(self.data, self.model, self._bare()))
        if not count:
            raise no_items()
        return count

    def _bare(self) -> Inputs:
        """A call as the first item gives it, for counting."""
        for item in items(self.data):
            return example_of(item, self.model, lossless=False)
        raise no_items()

    def seed_(self, *where: int) -> None:
        """Whoever reads the data itself now gets it in an order that goes by the place alone."""
        number = chance.seed_of(self.seed, *where)
        chance.seed(number)
        for generator in self._generators():
            generator.manual_seed(number)

    def _generators(self) -> Iterator[torch.Generator]:
        """Those that the loader brings."""
        batched = getattr(self.data, "batch_sampler", None)
        for one in (self.data, batched, getattr(self.data, "sampler", None), getattr(batched, "sampler", None)):
            generator = getattr(one, "generator", None)
            if isinstance(generator, torch.Generator):
                yield generator

    def _seed(self, round: int, epoch: int, rank: int) -> None:
        self.seed_(round, epoch, rank - ORDER)

    def _order(self, round: int, epoch: int) -> list[Any]:
        """The indices of every batch of an epoch."""
        assert self.loader is not None, "asked of a loader only"
        self._seed(round, epoch, ORDER)
        batched = self.loader.batch_sampler
        for one in (batched, self.loader.sampler, getattr(batched, "sampler", None), self.loader.dataset):
            if one is not None and hasattr(one, "set_epoch"):
                one.set_epoch(epoch)
        return list(self.loader.sampler if self.loader.batch_sampler is None else self.loader.batch_sampler)

    def _loaded(
        self, loader: DataLoader[Any], round: int, epoch: int, example: Inputs, start: int
    ) -> Iterator[tuple[Batch, int, int]]:
        """Of every batch its part for this process, how many samples that are, and how many all."""
        with chance.kept_apart():
            order = self._order(round, epoch)
        if self.ranks.count > 1 and not self.ranks.same(hashlib.sha256(repr(order).encode()).hexdigest()):
            way_out = "let it draw from torch, numpy or random, which are seeded alike on all processes"
            raise InputError("the sampler of the data gives every process another order", way_out)
        if len(order) != self.batches:
            raise self._other(len(order), epoch)
        if loader.batch_sampler is None:  # an index is a batch already
            reader = self._read(loader, order, start, round, epoch)
            yield from (self._cut(batch) for batch in batches(reader, self.model, example))
            return
        lists = [list(batch) for batch in order]
        spans = [_span(len(batch), self.ranks) for batch in lists]
        own = [batch[low:high] or batch for batch, (low, high) in zip(lists, spans, strict=True)]
        sizes = [(high - low, len(batch)) for batch, (low, high) in zip(lists, spans, strict=True)]
        found = batches(self._read(loader, own, start, round, epoch), self.model, example)
        for batch, (some, all_) in zip(found, sizes[start:], strict=True):
            yield batch, some, all_

    def _read(self, loader: DataLoader[Any], order: list[Any], start: int, round: int, epoch: int) -> Iterator[Any]:
        """The loader's items in this order from one on.

        Without workers what was done already is not loaded again: the generators of this process, which a checkpoint
        has, are all that random transforms draw from. Workers have generators of their own, so that they do it again.
        """
        generator = torch.Generator().manual_seed(chance.seed_of(self.seed, round, epoch, self.ranks.rank - ORDER))
        if not loader.num_workers:
            return iter(self._read_by(loader, order[start:], generator))
        return itertools.islice(self._read_by(loader, order, generator), start, None)

    def _read_by(
        self, loader: DataLoader[Any], order: Sequence[Any], generator: torch.Generator | None
    ) -> DataLoader[Any]:
        """The user's DataLoader in another order."""
        ordered: dict[str, Any] = {"batch_sampler": order}
        if loader.batch_sampler is None:
            ordered = {"batch_size": None, "sampler": order}
        names = (
            "num_workers collate_fn pin_memory timeout worker_init_fn multiprocessing_context prefetch_factor in_order"
        )
        settings = {name: getattr(loader, name) for name in names.split() if hasattr(loader, name)}
        return DataLoader(loader.dataset, **ordered, **settings, generator=generator)

    def _rows(self, round: int, epoch: int, example: Inputs, start: int) -> Iterator[tuple[Batch, int, int]]:
        """As `_loaded` of data that every process reads as a whole, drawing what random numbers it does alike."""
        with chance.kept_apart():
            self._seed(round, epoch, ORDER)
            drawn = chance.state()
        if hasattr(self.data, "set_epoch"):
            self.data.set_epoch(epoch)
        found = batches(self.data, self.model, example)
        for number in itertools.count():
            outside = chance.state()
            chance.restore(drawn)
            batch = next(found, None)
            drawn = chance.state()
            chance.restore(outside)
            if batch is None:
                return
            if number >= start:
                yield self._cut(batch)

    def _cut(self, batch: Batch) -> tuple[Batch, int, int]:
        """The rows of a whole batch that are this process' share."""
        if self.ranks.count == 1:
            return batch, batch.size, batch.size
        if batch.inputs.batch is None:
            fact = f"the tensors of {batch.where} share no batch dim, so that processes cannot share it"
            raise InputError(fact, "give inputs whose dim 0 is the batch, or train in one process")
        low, high = _span(batch.size, self.ranks)
        return (batch.rows(low, high, batch.where) if high > low else batch), high - low, batch.size


def _span(size: int, ranks: Ranks) -> tuple[int, int]:
    """From which sample to which a process has of a batch."""
    return size * ranks.rank // ranks.count, size * (ranks.rank + 1) // ranks.count


def _indexed(data: Any) -> bool:
    """Whether the data is a DataLoader that picks samples by index, as torch's own iterates."""
    plain = isinstance(data, DataLoader) and type(data).__iter__ is DataLoader.__iter__
    return plain and not isinstance(data.dataset, IterableDataset)
