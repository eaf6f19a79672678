"""Put what hands its input through in the place of whole modules."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from surgery.cutting.repair import set_
from surgery.deciding.bypasses import Bypass, Give, check_modules
from surgery.deciding.parts import Edit

PLAIN = (str, bool, int, float, type(None), torch.dtype)
HOOKS = (
    *("_forward_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called"),
    *("_forward_pre_hooks", "_forward_pre_hooks_with_kwargs", "_backward_hooks", "_backward_pre_hooks"),
)


class PassThrough(nn.Module):
    """Stands where a module was that went as a whole: hands arguments on, in training mode, too.

    `nn.Identity` does where the module took one tensor and handed out one; this does for all others.
    """

    def __init__(self, gives: Sequence[Give], form: str) -> None:
        super().__init__()
        self.gives, self.form = tuple(gives), form

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What is handed out."""
        given = [self._given(give, args, kwargs) for give in self.gives]
        if self.form == "tensor":
            return given[0]
        return tuple(given) if self.form == "tuple" else given

    def extra_repr(self) -> str:
        """For `print`."""
        return ", ".join(_told(give) for give in self.gives)

    @staticmethod
    def _given(give: Give, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if isinstance(give.source, int):
            return args[give.source]
        if give.source is not None:
            return kwargs[give.source]
        if give.zeros is None:
            return None
        like = next(v for v in (*args, *kwargs.values()) if isinstance(v, Tensor) and v.is_floating_point())
        return like.new_zeros([1] * give.zeros)


def shorten_(model: nn.Module, bypasses: Iterable[Bypass], renumbered: Iterable[Edit] = ()) -> nn.Module:
    """Take whole modules out of a model, in place; all other names stay.

    What stands in the place of a module takes over its hooks, its training flag and its plain attributes, which the
    code around may ask for. Numbers by which modules find their place in a cache are set anew.

    Raises:
        PlanError: A module is not there, or another one is; nothing is changed then.
    """
    bypasses, renumbered = tuple(bypasses), tuple(renumbered)
    check_modules(model, bypasses)
    for bypass in bypasses:
        old = model.get_submodule(bypass.module)
        new = nn.Identity() if bypass.alone else PassThrough(bypass.gives, bypass.form)
        new.train(old.training)
        for name, value in vars(old).items():
            if name != "training" and not name.startswith("_") and not hasattr(new, name) and _is_plain(value):
                setattr(new, name, value)
        if bypass.passes:
            for name in HOOKS:
                setattr(new, name, getattr(old, name))
        for parent in list(model.modules()):
            for name, child in parent._modules.items():
                if child is old:
                    parent._modules[name] = new
        for parameter in old.parameters():
            parameter.grad = None  # an optimizer that still holds it leaves it alone
    for edit in renumbered:
        set_(model, edit)
    return model


def _is_plain(value: Any) -> bool:
    """Whether an attribute is a number, a word or nothing, or some of these."""
    if isinstance(value, tuple | list):
        return all(_is_plain(part) for part in value)
    return isinstance(value, PLAIN)


def _told(give: Give) -> str:
    if give.source is not None:
        return f"argument {give.source}" if isinstance(give.source, int) else give.source
    return "None" if give.zeros is None else "zeros"
