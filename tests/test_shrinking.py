from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

import surgery
from surgery.errors import InputError
from surgery.registry import RULES
from surgery.rules import pointwise  # noqa: F401

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a = nn.Conv2d(3, 8, 3)
        self.b = nn.Conv2d(8, 6, 3)
        self.c = nn.Conv2d(6, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c(torch.relu(self.b(torch.erf(self.a(x)))))


def masked() -> Net:
    model = Net()
    with torch.no_grad():
        model.a.weight[:4] = 0
        model.b.weight[::2] = 0
    return model


def test_the_report_says_it_all() -> None:
    result = surgery.shrink(masked(), X)
    assert result.params_before == 8 * 28 + 6 * 73 + 4 * 7
    assert result.params_after == 4 * 28 + 3 * 37 + 4 * 4
    text = str(result)
    for part in ("a.weight: 8 -> 4", "b.weight: 6 -> 3", "proof passed", "7 of 21 channels go"):
        assert part in text


def test_nothing_to_remove_is_said_with_the_reason() -> None:
    result = surgery.shrink(Net(), X)
    assert result.plan.empty
    assert result.params_after == result.params_before
    assert "nothing was removed: no channel is dead" in str(result)
    assert "alive: b reads it, and it varies with the input" in str(result)


def test_keep_masks_do_what_zeros_do() -> None:
    model = Net()
    keep = {"a": torch.tensor([False] * 4 + [True] * 4), "b.weight": torch.arange(6) % 2 == 1}
    slim = surgery.shrink(model, X, keep_masks=keep).model
    torch.testing.assert_close(slim(X), surgery.shrink(masked(), X).model(X))
    assert model.a.weight.abs().sum(dim=(1, 2, 3)).min() > 0


def test_a_tolerance_is_opt_in_and_reported() -> None:
    model = masked()
    with torch.no_grad():
        model.a.weight[:4] = 1e-4
    assert surgery.shrink(model, X).plan.axis("a.weight").removed == 0
    result = surgery.shrink(model, X, tolerance=1e-3)
    assert result.plan.axis("a.weight").removed == 4
    assert any("tolerance 0.001 set" in note and "moved by" in note for note in result.notes)
    assert model.a.weight[0, 0, 0, 0] == 1e-4


def test_subnormals_are_counted_and_flushed_only_if_asked() -> None:
    model = masked()
    with torch.no_grad():
        model.a.weight[:4] = 1e-41
    result = surgery.shrink(model, X)
    assert result.plan.axis("a.weight").removed == 0
    assert any("108 subnormal weights" in note for note in result.notes)
    result = surgery.shrink(model, X, flush_subnormals=True)
    assert result.plan.axis("a.weight").removed == 4


def test_in_place_cuts_the_model_itself_and_a_copy_otherwise() -> None:
    model = masked()
    before = copy.deepcopy(model.state_dict())
    shrunk = surgery.shrink(model, X).model
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)
    result = surgery.shrink(model, X, inplace=True)
    assert result.model is model
    torch.testing.assert_close(model(X), shrunk(X), rtol=0, atol=0)


def test_fresh_prune_hooks_are_baked() -> None:
    model = Net()
    prune.ln_structured(model.a, "weight", 0.5, n=2, dim=0)
    result = surgery.shrink(model, X)
    assert result.plan.axis("a.weight").removed == 4
    assert any("baked" in note for note in result.notes)
    assert hasattr(model.a, "weight_orig")
    assert not hasattr(result.model.a, "weight_orig")


def test_a_wrong_rule_is_caught_and_its_group_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A planted fault: what erf makes of a constant is taken for what it was. The proof fails, and says whose fault."""
    right = RULES.get("aten.erf.default")

    def same(call: object, input: object) -> object:
        return input

    from surgery.registry import Rule
    from surgery.rules.pointwise import _pointwise

    monkeypatch.setitem(RULES, "aten.erf.default", Rule(_pointwise, frozenset(), False, ("aten.erf.default",), same))
    assert right is None
    result = surgery.shrink(masked(), X)
    assert result.plan.axis("a.weight").removed == 0
    assert result.plan.axis("b.weight").removed == 3
    assert any("a.weight:0 was put back" in note for note in result.notes)
    assert result.proof is not None
    assert result.proof.passed


@pytest.mark.parametrize(
    ("options", "message"), [({"tolerance": -1.0}, "tolerance is -1.0"), ({"round_to": 0}, "round_to is 0")]
)
def test_bad_options_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        surgery.shrink(Net(), X, **options)  # type: ignore[arg-type]


def test_live_dropout_is_refused_by_name() -> None:
    class Live(Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(nn.functional.dropout(x))

    with pytest.raises(InputError, match=r"draws random numbers in eval mode: aten\.dropout\.default"):
        surgery.shrink(Live(), X)


def test_training_flags_survive() -> None:
    model = masked().train()
    model.b.eval()
    slim = surgery.shrink(model, X).model
    assert (slim.training, slim.a.training, slim.b.training) == (True, True, False)
    assert (model.training, model.a.training, model.b.training) == (True, True, False)


def test_the_slim_model_shares_no_memory_with_the_given_one() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1), nn.Conv2d(4, 2, 1)).eval()
    with torch.no_grad():
        net[0].weight[:3] = 0
        net[0].bias[:3] = 0
    x = torch.randn(1, 3, 5, 5)
    for model in (
        surgery.shrink(net, x).model,
        surgery.shrink(nn.Sequential(net[4]), x[:, :1].expand(1, 4, 5, 5)).model,
    ):
        places = {tensor.untyped_storage().data_ptr() for tensor in [*net.parameters(), *net.buffers()]}
        assert places.isdisjoint(t.untyped_storage().data_ptr() for t in [*model.parameters(), *model.buffers()])


def test_in_place_the_model_itself_is_cut_and_no_tensor_is_left_behind() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 4, 1)).eval()
    with torch.no_grad():
        net[0].weight[:3] = 0
        net[0].bias[:3] = 0
    first, weight = net[0], net[0].weight
    result = surgery.shrink(net, torch.randn(1, 3, 5, 5), inplace=True, prove=False)
    assert result.model is net
    assert net[0] is first
    assert net[0].weight is weight
    assert tuple(weight.shape) == (5, 3, 1, 1)
    assert weight.untyped_storage().nbytes() == 5 * 3 * 4
