"""Which numbers of an output are distilled, where the classes lie, and which positions count."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPooling, CausalLMOutput, QuestionAnsweringModelOutput

from surgery.distilling.targets import (
    Asked,
    class_dim_of,
    counted,
    distilled,
    first_tensor,
    kind_of,
    labels_of,
    shifts,
)
from surgery.errors import InputError

NOTHING = Asked(None, None, None, -100)
A, B = torch.rand(2, 3), torch.rand(2, 4)


class Named(NamedTuple):
    logits: Tensor
    aux_logits: Tensor


@dataclass
class Held:
    loss: Tensor
    scores: Tensor


@pytest.mark.parametrize(
    ("output", "names"),
    [
        (A, {"": A}),
        ((torch.tensor(1.0), torch.arange(3), A, B), {"": A}),
        ([A, B], {"": A}),
        (Named(A, B), {"logits": A}),
        (CausalLMOutput(loss=torch.tensor(1.0), logits=A), {"logits": A}),
        (QuestionAnsweringModelOutput(start_logits=A, end_logits=B), {"start_logits": A, "end_logits": B}),
        ({"out": A}, {"out": A}),
        (Held(torch.tensor(1.0), A), {"scores": A}),
    ],
)
def test_what_is_distilled(output: Any, names: dict[str, Tensor]) -> None:
    found = distilled(output, NOTHING)
    assert found.keys() == names.keys()
    assert all(found[name] is tensor for name, tensor in names.items())


@pytest.mark.parametrize(
    ("output", "said"),
    [
        (BaseModelOutputWithPooling(last_hidden_state=A, pooler_output=B), "holds last_hidden_state, pooler_output"),
        ({"boxes": torch.arange(3)}, "holds no floating-point tensor"),
        (torch.arange(3), "is of torch.int64"),
        ((torch.arange(3), "text"), "is a tuple without a floating-point tensor"),
        (None, "is a NoneType without a floating-point tensor"),
    ],
)
def test_an_output_of_which_it_is_not_clear(output: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        distilled(output, NOTHING)


def test_an_output_by_name_or_place() -> None:
    pooled = BaseModelOutputWithPooling(last_hidden_state=A, pooler_output=B)
    assert distilled(pooled, Asked(None, "pooler_output", None, -100))["pooler_output"] is B
    assert distilled((A, B), Asked(None, 1, None, -100))["1"] is B
    for output, asked in ((pooled, "logit"), ((A, B), 2), ({"out": "text"}, "out")):
        with pytest.raises(InputError, match=rf"{asked!r}"):
            distilled(output, Asked(None, asked, None, -100))


def test_the_first_tensor_of_a_block() -> None:
    assert first_tensor((A, (B, B))) is A
    assert first_tensor({"mask": None, "hidden": B}) is B
    assert first_tensor(torch.arange(3)) is None


def test_one_number_a_sample_is_a_value_and_soft_labels_are_classes() -> None:
    assert kind_of("", torch.rand(4, 1), None, NOTHING) == "values"
    assert kind_of("", torch.rand(4), None, NOTHING) == "values"
    assert kind_of("", torch.rand(4, 1, 6, 6), None, NOTHING) == "values"
    assert kind_of("", torch.rand(4, 3, 6, 1), None, NOTHING) == "classes"
    assert kind_of("", torch.rand(4, 3), torch.arange(4), NOTHING) == "classes"
    assert kind_of("", torch.rand(4, 3), torch.softmax(torch.rand(4, 3), 1), NOTHING) == "classes"
    with pytest.raises(InputError, match=r"\[4, 3\] are held against floating-point targets") as refusal:
        kind_of("", torch.rand(4, 3), torch.rand(4, 3), NOTHING)
    assert "kind='classes' or 'values'" in str(refusal.value)
    with pytest.raises(InputError, match="last_hidden_state"):
        kind_of("last_hidden_state", torch.rand(4, 3), None, NOTHING)


def test_the_classes_lie_where_the_labels_do_not() -> None:
    assert class_dim_of("", torch.rand(2, 7, 4, 5), torch.zeros(2, 4, 5, dtype=torch.long), NOTHING) == 1
    assert class_dim_of("", torch.rand(2, 4, 7), torch.zeros(2, 4, dtype=torch.long), NOTHING) == 2
    assert class_dim_of("", torch.rand(2, 7, 4), torch.zeros(2, 4, dtype=torch.long), NOTHING) == 1
    assert class_dim_of("", torch.rand(2, 4, 7), None, NOTHING) == 2
    assert class_dim_of("", torch.rand(2, 7, 4, 5), None, Asked(None, None, -3, -100)) == 1
    assert class_dim_of("logits", torch.rand(2, 4, 4), torch.zeros(2, 4, dtype=torch.long), NOTHING) == 2
    for shape, labels in (((2, 7, 4, 5), None), ((2, 4, 4), torch.zeros(2, 4, dtype=torch.long))):
        with pytest.raises(InputError, match="class"):
            class_dim_of("", torch.rand(shape), labels, NOTHING)
    with pytest.raises(InputError, match="class_dim is 4"):
        class_dim_of("", torch.rand(2, 3), None, Asked(None, None, 4, -100))


class ToyForCausalLM(nn.Module):
    loss_type = "ForCausalLM"


def test_the_label_of_a_causal_model_is_the_next_positions() -> None:
    labels = torch.tensor([[-100, -100, 5, 6, -100]])
    plain = counted(torch.Size([1, 5]), nn.Linear(1, 1), labels, {}, NOTHING)
    assert plain is not None
    assert plain.tolist() == [[False, False, True, True, False]]
    assert shifts(ToyForCausalLM())
    causal = counted(torch.Size([1, 5]), ToyForCausalLM(), labels, {}, NOTHING)
    assert causal is not None
    assert causal.tolist() == [[False, True, True, False, False]]


def test_what_the_attention_mask_leaves_out_does_not_count() -> None:
    attended = {"attention_mask": torch.tensor([[1, 1, 0]])}
    found = counted(torch.Size([1, 3]), None, None, attended, NOTHING)
    assert found is not None
    assert found.tolist() == [[True, True, False]]
    both = counted(torch.Size([1, 3]), None, torch.tensor([[-1, 2, 2]]), attended, Asked(None, None, None, -1))
    assert both is not None
    assert both.tolist() == [[False, True, False]]
    assert counted(torch.Size([1]), None, torch.tensor([3, 3]), attended, NOTHING) is None


def test_labels_from_targets_or_keywords() -> None:
    labels = torch.arange(3)
    assert labels_of(labels, {}) is labels
    assert labels_of({"labels": labels}, {}) is labels
    assert labels_of(None, {"labels": labels}) is labels
    assert labels_of(torch.rand(3), {"labels": labels}) is None
