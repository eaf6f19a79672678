"""Which root mean square norms a cut can make up for: those with a gain of their own and an eps that a module holds."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from surgery.analysis.capture import Program, capture, exported
from surgery.analysis.norms import norm_sites
from surgery.coupling import NormSite
from surgery.inputs import Inputs

WIDTH = 6


def sites(model: nn.Module) -> dict[str, NormSite]:
    """What is found in a model on tokens."""
    return norm_sites(model, program(model))


def program(model: nn.Module) -> Program:
    return capture(model.eval(), Inputs.of(torch.zeros(2, 3, WIDTH)))


class Llama(nn.Module):
    """In float32, whatever comes in; the gain comes last."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(WIDTH))
        self.variance_epsilon = 1e-5

    def forward(self, x: Tensor) -> Tensor:
        kind = x.dtype
        x = x.to(torch.float32)
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)).to(kind)


class Gemma(nn.Module):
    """One is added to the gain."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.zeros(WIDTH)), 1e-6

    def forward(self, x: Tensor) -> Tensor:
        out = x.float() * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + self.eps)
        return (out * (1.0 + self.weight.float())).type_as(x)


class Written(nn.Module):
    """A norm of one line, with a choice of faults."""

    def __init__(self, kind: str = "") -> None:
        super().__init__()
        self.weight, self.eps, self.kind = nn.Parameter(torch.ones(WIDTH)), 1e-5, kind

    def forward(self, x: Tensor) -> Tensor:
        eps = 1e-3 if self.kind == "literal eps" else self.eps
        dim = 1 if self.kind == "over tokens" else -1
        root = torch.rsqrt((x * x).mean(dim, keepdim=True) + eps)
        if self.kind == "rooted by a power":
            root = ((x * x).mean(dim, keepdim=True) + eps).pow(-0.5)
        scaled = (x + 1 if self.kind == "of another value" else x) * root
        if self.kind == "read twice":
            return self.weight * scaled + scaled
        if self.kind == "root read twice":
            return self.weight * scaled + root
        if self.kind == "gain of the input":
            return x.abs() * scaled
        if self.kind == "gain read elsewhere":
            return self.weight * scaled + self.weight
        return self.weight * scaled


class Twice(nn.Module):
    """One norm called on two values."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(WIDTH, eps=1e-4)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.norm(x) + x)


class Borrowed(nn.Module):
    """The gain of a norm is a bias somewhere else."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(WIDTH, eps=1e-4)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x) + self.norm.weight


class Functional(nn.Module):
    """`F.rms_norm` with the module's own tensors."""

    def __init__(self, *, literal: bool) -> None:
        super().__init__()
        self.weight, self.eps, self.literal = nn.Parameter(torch.ones(WIDTH)), 1e-4, literal

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, x.shape[-1:], self.weight, 1e-3 if self.literal else self.eps)


def test_torch_s_own_norm_is_found_with_its_eps() -> None:
    (site,) = sites(nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.RMSNorm(WIDTH, eps=1e-4))).values()
    assert (site.gain, site.offset, site.module, site.attribute) == ("1.weight", 0, "1", "eps")
    assert (site.eps, site.value, site.eps_argument) == (1e-4, 1e-4, "eps")
    assert site.eps_node == site.node


def test_a_norm_without_an_eps_has_that_of_its_dtype() -> None:
    (site,) = sites(nn.RMSNorm(WIDTH, eps=None)).values()
    assert site.eps is None
    assert site.value == torch.finfo(torch.float32).eps


def test_a_llama_s_norm_is_found_through_its_casts() -> None:
    (site,) = sites(Llama()).values()
    assert (site.gain, site.offset, site.attribute) == ("weight", 0, "variance_epsilon")
    assert site.node.startswith("mean")
    assert site.eps_node.startswith("add")
    assert (site.eps, site.eps_argument) == (1e-5, "other")


def test_a_gemma_s_norm_adds_one_to_its_gain() -> None:
    (site,) = sites(Gemma()).values()
    assert (site.gain, site.offset, site.attribute) == ("weight", 1, "eps")


@pytest.mark.parametrize("kind", ["", "rooted by a power"])
def test_a_norm_of_one_line_is_found(kind: str) -> None:
    assert len(sites(Written(kind))) == 1


@pytest.mark.parametrize(
    "kind",
    ["literal eps", "over tokens", "of another value", "read twice", "root read twice", "gain of the input"],
)
def test_what_is_not_quite_a_norm_is_none(kind: str) -> None:
    assert sites(Written(kind)) == {}


def test_a_gain_that_is_read_elsewhere_is_none_that_could_take_anything_up() -> None:
    assert sites(Written("gain read elsewhere")) == {}
    assert sites(Borrowed()) == {}


def test_a_norm_that_is_called_twice_is_found_at_both_places() -> None:
    found = sites(Twice())
    assert len(found) == 2
    assert {site.gain for site in found.values()} == {"norm.weight"}


def test_a_functional_norm_needs_an_attribute_for_its_eps() -> None:
    assert len(sites(Functional(literal=False))) == 1
    assert sites(Functional(literal=True)) == {}


def test_a_norm_without_a_gain_is_none() -> None:
    assert sites(nn.RMSNorm(WIDTH, elementwise_affine=False)) == {}


def test_what_export_asserts_about_a_kind_reads_nothing() -> None:
    """It writes an op without an answer down behind every cast: of the norm's value, and of the gain."""
    written = exported(Llama().double().eval(), Inputs.of(torch.zeros(2, 3, WIDTH, dtype=torch.float64)))
    assert any("_assert_tensor_metadata" in str(node.target) for node in written.calls)
    assert {site.gain for site in norm_sites(Llama(), written).values()} == {"weight"}
