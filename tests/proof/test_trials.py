"""Which inputs a proof tries."""

from __future__ import annotations

import torch

from surgery.inputs import Inputs
from surgery.proof.trials import accepted, another_size, batches, same_shape, shapes


def test_an_attention_mask_is_padded_on_the_left_in_the_batch_of_three() -> None:
    tokens = torch.randint(0, 50, (1, 6))
    attempts = batches(Inputs.of((), {"input_ids": tokens, "attention_mask": torch.ones(1, 6, dtype=torch.int64)}))
    assert [attempt.name for attempt in attempts] == ["batch 3"]
    padded, plain = attempts[0].candidates
    assert padded.kwargs["attention_mask"].tolist() == [[1] * 6, [0, 0, 0, 1, 1, 1], [1] * 6]
    assert plain.kwargs["attention_mask"].tolist() == [[1] * 6] * 3
    assert torch.equal(padded.kwargs["input_ids"], plain.kwargs["input_ids"])


def test_token_types_and_images_are_no_masks() -> None:
    types = torch.zeros(2, 6, dtype=torch.int64)
    for inputs in (Inputs.of((torch.randint(0, 50, (2, 6)), types)), Inputs.of(torch.ones(2, 6))):
        one, three = batches(inputs)
        assert [len(list(attempt.candidates)) for attempt in (one, three)] == [1, 1]


def test_no_shared_batch_dim_means_no_batches() -> None:
    assert batches(Inputs.of((torch.randn(2, 3), torch.tensor(1.0)))) == []


def test_another_size_is_of_batch_one() -> None:
    candidates = list(another_size(Inputs.of(torch.randn(8, 3, 16, 16))).candidates)
    assert [list(c.tensors()[0].shape) for c in candidates][:2] == [[1, 3, 48, 48], [1, 3, 24, 24]]


def test_the_first_candidate_that_is_accepted_is_used_or_the_first_refusal_told() -> None:
    attempt = another_size(Inputs.of(torch.randn(1, 3, 16, 16)))

    def run(inputs: Inputs) -> str:
        if inputs.tensors()[0].shape[-1] == 48:
            raise ValueError("48 is\ntoo large")
        return "ran"

    taken = accepted(attempt, run)
    assert not isinstance(taken, str)
    assert shapes(taken[0]) == "[1, 3, 24, 24]"
    assert taken[1] == "ran"

    def refuse(inputs: Inputs) -> str:
        raise ValueError(f"{inputs.tensors()[0].shape[-1]} is not 16\nat all")

    again = another_size(Inputs.of(torch.randn(1, 3, 16, 16)))
    assert accepted(again, refuse) == "the masked model refuses it (ValueError: 48 is not 16)"
    assert accepted(another_size(Inputs.of(torch.randn(1, 3))), run) == "the example has no dim for it"


def test_two_fresh_calls_differ() -> None:
    one, two = (next(iter(attempt.candidates)) for attempt in same_shape(Inputs.of(torch.randn(1, 3))))
    assert not torch.equal(one.tensors()[0], two.tensors()[0])


def test_an_example_of_batch_three_gets_fresh_values_in_three() -> None:
    assert [attempt.name for attempt in batches(Inputs.of(torch.randn(3, 4)))] == ["batch 1", "batch 3"]
    assert [attempt.name for attempt in batches(Inputs.of(torch.randn(1, 4)))] == ["batch 3"]
