"""Methods with numbers in the place of sizes that their code insists on run, and are copied, pickled and exported."""

from __future__ import annotations

import copy
import functools
import io
import pickle
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import surgery
from surgery.cutting import methods
from surgery.cutting.methods import Rewritten, rewrite_
from surgery.deciding.parts import Rewrite
from surgery.errors import PlanError
from tests.exactness import shrunk
from tests.nets import lively, zero_

X = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(7))
SHAPES = ((1, 0), (3, 0))


def loud(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator that leaves its mark."""

    @functools.wraps(function)
    def around(*args: Any, **kwargs: Any) -> Any:
        return -function(*args, **kwargs)

    return around


def joined(x: Tensor, b: int, n: int, width: int) -> Tensor:
    """A function that a method calls, with the size in it."""
    return x.transpose(1, 2).reshape(b, n, width)


class Base(nn.Module):
    """Attention of two heads of four, whose code takes the width off its input."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = 2
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 8)

    def mixed(self, x: Tensor) -> Tensor:
        """What heads hand out, `[b, heads, n, 4]`."""
        b, n, c = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        return (q @ k.transpose(-2, -1) * (c // self.heads) ** -0.5).softmax(-1) @ v


class Plain(Base):
    """The size in forward itself."""

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        return self.out(self.mixed(x).transpose(1, 2).reshape(b, n, c))  # type: ignore[no-any-return]


class Called(Base):
    """The size in a function."""

    def forward(self, x: Tensor) -> Tensor:
        return self.out(joined(self.mixed(x), *x.shape))  # type: ignore[no-any-return]


class Decorated(Base):
    """Two decorators around forward, and `super()` inside."""

    @torch.no_grad()
    @loud
    def forward(self, x: Tensor) -> Tensor:
        if super().extra_repr():
            return x
        return self.out(self.mixed(x).transpose(1, 2).reshape(x.shape))  # type: ignore[no-any-return]


class Inherited(Base):
    """The size in a method of the class above, which no attribute of the module can stand before."""

    def mixed(self, x: Tensor) -> Tensor:
        """What the class above does."""
        return super().mixed(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.mixed(x).transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class Comprehending(Base):
    """The size in a comprehension, and in a tuple that is put together elsewhere."""

    def forward(self, x: Tensor) -> Tensor:
        shape = (*x.shape[:2], x.shape[2])
        (y,) = [part.transpose(1, 2).reshape(*shape) for part in [self.mixed(x)]]
        return self.out(y)  # type: ignore[no-any-return]


class Private(Base):
    """A name that Python mangles, and a keyword."""

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.__joined(self.mixed(x).transpose(1, 2), shape=x.shape))  # type: ignore[no-any-return]

    def __joined(self, x: Tensor, shape: torch.Size) -> Tensor:
        return torch.reshape(x, shape=shape)


KINDS = [Plain, Called, Decorated, Comprehending, Private]


def deaf(kind: type[Base]) -> Base:
    """The second head is not read."""
    net = lively(kind())
    zero_(net.out.weight, range(4, 8), dim=1)
    assert isinstance(net, Base)
    return net


@pytest.mark.parametrize("kind", KINDS)
def test_a_head_goes_and_the_class_stays(kind: type[Base]) -> None:
    net = deaf(kind)
    result = shrunk(net, X, shapes=SHAPES)
    assert result.model.qkv.weight.shape == (12, 8)
    assert result.plan.rewrites
    assert "forward" not in vars(net), "the user's model was changed"
    assert type(net).forward is kind.forward


@pytest.mark.parametrize("kind", KINDS)
def test_copied_pickled_saved_and_shrunk_again(kind: type[Base], tmp_path: Any) -> None:
    net = deaf(kind)
    result = surgery.shrink(net, X)
    assert result.proof is not None
    assert result.proof.passed
    slim, wanted = result.model, net(X)
    held = io.BytesIO()
    torch.save(slim, held)
    held.seek(0)
    surgery.save(result, tmp_path / "slim")
    others = {
        "deepcopy": copy.deepcopy(slim),
        "pickle": pickle.loads(pickle.dumps(slim)),
        "torch.save": torch.load(held, weights_only=False),
        "surgery.save": surgery.load(tmp_path / "slim", kind()),
        "JSON": surgery.Plan.from_json(result.plan.to_json()).apply(net),
    }
    for name, other in others.items():
        torch.testing.assert_close(other(X), wanted, msg=name)
        assert type(other) is kind, name
    copied = others["deepcopy"]
    with torch.no_grad():
        copied.out.weight.zero_()
        copied.out.bias.zero_()
    assert not copied(X).any(), "a copy that calls the model it was copied from"
    torch.testing.assert_close(slim(X), wanted)
    zero_(slim.qkv.weight, [1, 5, 9])
    zero_(slim.qkv.bias, [1, 5, 9])
    twice = surgery.shrink(slim, X)
    assert type(twice.model) is kind
    assert twice.model.qkv.weight.shape == (9, 8)
    torch.testing.assert_close(twice.model(X), slim(X))


@pytest.mark.parametrize("file", ["slim.pt", "slim.onnx"])
def test_exported(file: str, tmp_path: Any) -> None:
    result = surgery.shrink(deaf(Called), X)
    export = surgery.export(result.model, tmp_path / file, X)
    assert export.parity.max_rel_error < 1e-5


def test_it_trains_and_compiles() -> None:
    slim = surgery.shrink(deaf(Called), X).model.train()
    slim(X).square().mean().backward()
    assert slim.qkv.weight.grad is not None
    assert slim.qkv.weight.grad.shape == (12, 8)
    torch.testing.assert_close(torch.compile(slim, backend="eager")(X), slim(X))


def test_the_code_stays_where_a_graph_or_code_is_not_wanted() -> None:
    net = deaf(Plain)
    result = surgery.shrink(net, X, keep_class=True)
    assert result.plan.empty
    assert not result.plan.rewrites
    assert "forward" not in vars(result.model)


def test_a_wrapper_in_the_place_of_a_method_stays_there() -> None:
    """As accelerate leaves them with modules whose weights it moves."""
    net = deaf(Plain)
    plain = net.forward
    net.forward = lambda x: -plain(x)  # type: ignore[method-assign,assignment]
    result = surgery.shrink(net, X)
    assert not result.plan.rewrites
    torch.testing.assert_close(result.model(X), net(X))
    with pytest.raises(PlanError, match="the module has another in its place"):
        rewrite_(net, [rewrite()])


class Counted:
    """A decorator that is an object, and no function that could be made again around another."""

    def __init__(self, function: Callable[..., Any]) -> None:
        functools.update_wrapper(self, function)
        self.function = function

    def __get__(self, owner: Any, kind: Any = None) -> Any:
        return functools.partial(self.function, owner) if owner is not None else self


class Guarded(Base):
    """Forward inside of such a one."""

    @Counted
    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        return self.out(self.mixed(x).transpose(1, 2).reshape(b, n, c))  # type: ignore[no-any-return]


def test_what_cannot_be_taken_apart_takes_the_graph() -> None:
    shrunk(deaf(Guarded), X, kind="graph", shapes=SHAPES)


def test_code_that_only_super_reaches_takes_the_graph() -> None:
    shrunk(deaf(Inherited), X, kind="graph", shapes=SHAPES)


def rewrite(**other: Any) -> Rewrite:
    """The one of `Plain`."""
    (found,) = [r for r in surgery.shrink(deaf(Plain), X).plan.rewrites if r.text == "c"]
    return Rewrite(**{**vars(found), **other})


def test_a_plan_for_other_code_is_refused() -> None:
    for wrong in ({"text": "d"}, {"place": (1, 0, 1, 1)}, {"functions": ("backward",)}, {"module": "body"}):
        with pytest.raises(PlanError, match="cannot be rewritten") as caught:
            rewrite_(Plain(), [rewrite(**wrong)])
        assert "make it again" in str(caught.value)
    with pytest.raises(PlanError, match="knows no function unknown"):
        rewrite_(Plain(), [rewrite(functions=("forward", "unknown"))])
    with pytest.raises(PlanError, match="names no function"):
        surgery.Plan.from_json(surgery.shrink(deaf(Plain), X).plan.to_json().replace('["forward"]', "[]"))


class Changed(Base):
    """Its file is another when it is looked at."""

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        return self.out(self.mixed(x).transpose(1, 2).reshape(b, n, +c))  # type: ignore[no-any-return]


def test_a_file_that_changed_since_it_was_imported_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    real = methods.linecache.getlines

    def changed(name: str) -> list[str]:
        return [line.replace("n, +c", "n, -c") for line in real(name)]

    monkeypatch.setattr(methods, "linecache", SimpleNamespace(getlines=changed))
    result = surgery.shrink(deaf(Changed), X)
    assert not result.plan.rewrites
    assert result.proof is not None
    assert result.proof.passed


def test_a_rewritten_method_keeps_its_lines_and_its_name() -> None:
    slim = surgery.shrink(deaf(Plain), X).model
    forward = vars(slim)["forward"]
    assert isinstance(forward, Rewritten)
    code = forward.func.__code__
    assert (code.co_filename, code.co_firstlineno) == (
        Plain.forward.__code__.co_filename,
        Plain.forward.__code__.co_firstlineno,
    )
