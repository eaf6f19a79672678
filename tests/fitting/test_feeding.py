from __future__ import annotations

import random
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import BatchSampler, DataLoader, Dataset, DistributedSampler, IterableDataset, TensorDataset

import surgery
from surgery.errors import InputError
from surgery.fitting.feeding import Feed
from surgery.fitting.ranks import Ranks
from tests.fitting.runs import loader, plain, samples


def rank(number: int, count: int) -> Ranks:
    """A process that talks to nobody."""
    found = Ranks(SimpleNamespace(num_processes=count, process_index=number, is_main_process=number == 0))
    found.same = lambda _: True  # type: ignore[method-assign]
    return found


class Stream(IterableDataset[Any]):
    """A stream that shuffles as it goes, and does not say how long it is."""

    def __iter__(self) -> Iterator[Any]:
        x, y = samples()
        order = list(range(50))
        random.shuffle(order)
        for index in order:
            yield x[index] + torch.rand(()), y[index]


class Noisy(Dataset[Any]):
    """Samples with random numbers in them, of torch, NumPy and Python."""

    def __len__(self) -> int:
        return 50

    def __getitem__(self, index: int) -> Any:
        noise = torch.rand(()) + np.random.rand() + random.random()  # noqa: NPY002
        return torch.full((8,), float(index), dtype=torch.float64) + noise * 1e-3, index


def stream_function() -> Any:
    return DataLoader(Stream(), batch_size=8)


def weighted() -> Any:
    data = TensorDataset(*samples())
    sampler = torch.utils.data.WeightedRandomSampler(torch.ones(50), 30, generator=torch.Generator())
    return DataLoader(data, batch_sampler=BatchSampler(sampler, 7, drop_last=False))


def already_batched() -> Any:
    pairs = list(zip(*(one.split(9) for one in samples()), strict=True))
    return DataLoader(pairs, batch_size=None, shuffle=True)  # type: ignore[arg-type]


def of_rows() -> Any:
    return list(zip(*(one.split(9) for one in samples()), strict=True))


KINDS: dict[str, Any] = {
    "loader": loader,
    "loader with a generator": lambda: DataLoader(
        TensorDataset(*samples()), batch_size=8, shuffle=True, generator=torch.Generator()
    ),
    "batch sampler": weighted,
    "stream": lambda: DataLoader(Stream(), batch_size=8),
    "function": lambda: stream_function,
    "batches of its own": already_batched,
    "list": of_rows,
    "tensor": lambda: samples()[0],
    "noisy": lambda: DataLoader(Noisy(), batch_size=8, shuffle=True),
}


def read(data: Any, ranks: Ranks, start: int = 0, accumulate: int = 1, epoch: int = 0) -> list[Any]:
    """Per step, per batch: its first column, its targets and its weight."""
    feed = Feed(data, plain(), ranks, seed=3, accumulate=accumulate)
    example = feed.example(False)
    return [
        [(one.batch.inputs.tensors()[0][:, 0], one.batch.targets, one.weight) for one in step.shares]
        for step in feed.epoch(0, epoch, example, start)
    ]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("accumulate", [1, 3])
def test_processes_share_every_batch_out(kind: str, accumulate: int) -> None:
    whole = read(KINDS[kind](), rank(0, 1), accumulate=accumulate)
    parts = [read(KINDS[kind](), rank(number, 3), accumulate=accumulate) for number in range(3)]
    for place, step in enumerate(whole):
        assert sum(weight for _, _, weight in step) == pytest.approx(1)
        assert sum(weight for part in parts for _, _, weight in part[place]) == pytest.approx(1)
        for number, (rows, _, _) in enumerate(step):
            shared = [part[place][number] for part in parts]
            together = torch.cat([own for own, _, weight in shared if weight])
            tolerance = 1e-2 if kind == "noisy" else 0.0  # what is loaded draws where it is loaded
            torch.testing.assert_close(together, rows, rtol=tolerance, atol=tolerance)
            assert all(len(own) for own, _, _ in shared)


@pytest.mark.parametrize("kind", KINDS)
def test_an_epoch_can_be_had_again_from_any_step_on(kind: str) -> None:
    for epoch in (0, 1):
        torch.manual_seed(0)
        whole = read(KINDS[kind](), rank(0, 1), epoch=epoch)
        torch.manual_seed(1)
        again = read(KINDS[kind](), rank(0, 1), epoch=epoch, start=1)
        tolerance = 1e-2 if kind == "noisy" else 0.0  # its generators are those of the checkpoint
        torch.testing.assert_close(again, whole[1:], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("kind", ["loader", "batch sampler", "stream", "function", "noisy", "batches of its own"])
def test_epochs_differ(kind: str) -> None:
    first, second = (read(KINDS[kind](), rank(0, 1), epoch=epoch) for epoch in (0, 1))
    assert any(not torch.equal(a[0][0], b[0][0]) for a, b in zip(first, second, strict=True))


def test_workers_do_what_they_did_when_an_epoch_is_taken_up_again() -> None:
    def data() -> Any:
        return DataLoader(Noisy(), batch_size=8, shuffle=True, num_workers=1, persistent_workers=True)

    torch.testing.assert_close(read(data(), rank(0, 1), start=3), read(data(), rank(0, 1))[3:], rtol=0, atol=0)


def test_reading_data_draws_nothing_from_the_generators_of_training() -> None:
    for data in (DataLoader(Stream(), batch_size=8), loader()):
        feed = Feed(data, plain(), rank(0, 1), seed=3, accumulate=1)
        torch.manual_seed(5)
        before = torch.get_rng_state(), random.getstate()
        assert len(list(feed.epoch(0, 0, feed.example(False)))) == 7
        assert torch.equal(torch.get_rng_state(), before[0])
        assert random.getstate() == before[1]


class Shrinking:
    """Fewer batches whenever it is read."""

    def __init__(self, step: int) -> None:
        self.left, self.step = 6, step

    def __iter__(self) -> Iterator[Any]:
        self.left += self.step
        yield from of_rows()[: self.left]


@pytest.mark.parametrize("step", [-1, 1])
def test_another_number_of_batches_is_refused(step: int) -> None:
    data = Shrinking(step)
    data.left = 6 if step < 0 else 0
    with pytest.raises(InputError, match=r"the data gave \d batches in epoch 1, and \d when they were counted"):
        read(data, rank(0, 1))


def once() -> Iterator[Any]:
    yield from of_rows()


def prepared() -> Any:
    from accelerate.data_loader import prepare_data_loader

    return prepare_data_loader(loader())


@pytest.mark.parametrize(
    ("data", "count", "said"),
    [
        (
            once,
            1,
            "the data is a generator, which can be read once only\n  -> pass a DataLoader, a list, or a function",
        ),
        (
            lambda: TensorDataset(*samples()),
            1,
            "the data is a TensorDataset, whose items are single samples\n  -> wrap it",
        ),
        (lambda: list(zip(*samples(), strict=True)), 1, "its target .* has no batch dim\n  -> iterate over batches"),
        (list, 1, "the data is empty\n  -> pass at least one batch"),
        (
            lambda: [("a", "b")],
            1,
            "the first item of the data is a tuple without tensors\n  -> give batches of tensors",
        ),
        (lambda: [{"y": torch.ones(2)}], 1, "the first item of the data has y\n  -> name the inputs: input"),
        (lambda: 3, 1, "the data is a int\n  -> pass a DataLoader"),
        (prepared, 2, "prepared by an Accelerator\n  -> pass the one that it was made from"),
        (
            lambda: DataLoader(
                TensorDataset(*samples()), sampler=DistributedSampler(TensorDataset(*samples()), 2, 0), batch_size=4
            ),
            1,
            "has a DistributedSampler, which leaves samples out\n  -> leave the sampler out",
        ),
    ],
)
def test_data_that_cannot_be_trained_on(data: Any, count: int, said: str) -> None:
    given = data() if data is not once else once()
    with pytest.raises(InputError, match=said):
        read(given, rank(0, count))


def test_samplers_that_disagree_are_refused() -> None:
    ranks = rank(0, 2)
    ranks.same = lambda _: False  # type: ignore[method-assign]
    with pytest.raises(InputError, match="the sampler of the data gives every process another order"):
        read(loader(), ranks)


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 3).double()

    def forward(self, a: Tensor, b: Tensor | None = None, labels: Tensor | None = None) -> dict[str, Tensor]:
        logits: Tensor = self.layer(a if b is None else a + b)
        return {"logits": logits} | ({} if labels is None else {"loss": cross_entropy(logits, labels)})


def of_logits(outputs: Any, targets: Any) -> Tensor:
    return cross_entropy(outputs["logits"], targets)


@pytest.mark.parametrize(
    ("keys", "loss", "inputs"),
    [
        (("a", "y"), of_logits, 1),
        (("a", "b", "y"), of_logits, 2),
        (({"a": 0, "b": 0}, "y"), of_logits, 2),
        ({"a": 0, "labels": 0, "more": 0}, None, 1),
        (("a", "b", "y"), None, 3),
    ],
)
def test_what_is_input_and_what_is_target(keys: Any, loss: Any, inputs: int) -> None:
    x, y = samples(6)
    values = {"a": x, "b": x, "y": y, "labels": y, "more": y}
    item = {k: values[k] for k in keys} if isinstance(keys, dict) else None
    if item is None:
        item = tuple({n: values[n] for n in key} if isinstance(key, dict) else values[key] for key in keys)
    torch.manual_seed(0)
    model = Pair()
    expected = cross_entropy(model(x, x if "'b'" in str(keys) else None)["logits"], y).detach()
    fitted = surgery.fit(model, [item], loss)
    assert fitted.losses == pytest.approx([float(expected)])
    assert len(Feed([item], model, rank(0, 1), seed=0, accumulate=1).example(loss is None).tensors()) == inputs


def test_the_first_step_of_a_step_of_several_batches_may_be_left_out() -> None:
    whole = read(loader(), rank(0, 1), accumulate=3)
    assert [len(step) for step in whole] == [3, 3, 1]
    torch.testing.assert_close(read(loader(), rank(0, 1), accumulate=3, start=2), whole[2:], rtol=0, atol=0)
