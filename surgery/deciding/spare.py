"""Modules that nothing would miss: what they hand out is what they were given, or zeros, or nobody asks for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import fx, nn

from surgery.analysis.capture import Program
from surgery.analysis.unchanged import LAYING, RESTING, Unchanged
from surgery.analysis.writes import written_argument
from surgery.calls import short_name

SPREADING = (*RESTING, "contiguous", "clone", "alias", "detach", "to", "_to_copy")
"""Ops beside the pointwise ones that take zeros of one entry for zeros of any shape."""

BOUND = "its zeros go into {op}, which asks for their shape"
FED = "what it feeds cannot go"
HEARD = "a hook listens inside it"


@dataclass(frozen=True)
class Spare:
    """Which modules could go.

    Attributes:
        paths: The outermost ones, in the order of the model.
        refused: Those that cannot go all the same, each with the reason.
        silent: Of the first, those that hand out zeros to others.
    """

    paths: tuple[str, ...]
    refused: tuple[tuple[str, str], ...]
    silent: frozenset[str] = frozenset()


def spare_modules(
    model: nn.Module, unchanged: Unchanged, staying: Mapping[str, str] | None = None, parts: Sequence[str] = ()
) -> Spare:
    """The modules without which the model computes the same.

    Args:
        model: The model.
        unchanged: What its program computes for nothing.
        staying: Modules that cannot go for other reasons.
        parts: Paths that are to go one by one: no module that holds several of them goes.
    """
    return _Search(model, unchanged.program, unchanged, staying or {}, tuple(parts)).result()


@dataclass(frozen=True)
class _Search:
    model: nn.Module
    program: Program
    unchanged: Unchanged
    staying: Mapping[str, str]
    parts: tuple[str, ...]

    @cached_property
    def inside(self) -> dict[str, list[fx.Node]]:
        """The ops that run inside every module, by path."""
        found: dict[str, list[fx.Node]] = {}
        for node in self.program.calls:
            for path in dict.fromkeys(self.program.modules_of(node.name)):
                found.setdefault(path, []).append(node)
        return found

    @cached_property
    def around(self) -> dict[fx.Node, frozenset[str]]:
        """The modules around every op."""
        return {node: frozenset(self.program.modules_of(node.name)) for node in self.program.calls}

    def result(self) -> Spare:
        """The outermost ones that can go."""
        paths = list(self._outermost(""))
        refused: list[tuple[str, str]] = []
        while True:  # what one cannot go without, others may
            faults = {path: why for path in paths if (why := self._fault(path, frozenset(paths)))}
            if not faults:
                silent = frozenset(path for path in paths if not self._passes(path))
                return Spare(tuple(paths), tuple(refused), silent)
            refused += [(path, why) for path, why in faults.items() if why != FED]
            paths = [path for path in paths if path not in faults]

    def _outermost(self, path: str) -> Iterator[str]:
        """The outermost idle modules at and below a path."""
        module = self.model.get_submodule(path) if path else self.model
        below = [f"{path}.{name}" if path else name for name, _ in module.named_children()]
        several = sum(part.startswith(f"{path}.") for part in self.parts) > 1
        if path and not several and self._idle(path) and not (self._passes(path) and self._is_row(path, module)):
            yield path
            return
        for child in below:
            yield from self._outermost(child)

    def _idle(self, path: str) -> bool:
        """Whether a module computes something, and nobody needs it."""
        nodes = self.inside.get(path, ())
        busy = any(node in self.unchanged.working for node in nodes)
        return not busy and any(
            node not in self.unchanged.same and short_name(node.target) not in (*RESTING, *LAYING) for node in nodes
        )

    def _passes(self, path: str) -> bool:
        """Whether what leaves a module is all of what arrives there (not zeros)."""
        return not any(node in self.unchanged.nothing for node in self._leaving(path))

    def _is_row(self, path: str, module: nn.Module) -> bool:
        """Whether a container is a row of such modules: they go one by one, for others find them by number."""
        if not isinstance(module, nn.Sequential):
            return False
        parts = [f"{path}.{name}" for name, _ in module.named_children()]
        return all(self._passes(part) for part in parts) and any(self._idle(part) for part in parts)

    def _leaving(self, path: str) -> list[fx.Node]:
        """The values of a module that ops outside of it take."""
        nodes = self.inside.get(path, ())
        return [node for node in nodes if any(path not in self.around.get(user, ()) for user in node.users)]

    def _fault(self, path: str, going: frozenset[str]) -> str:
        """Why a module cannot go; "" where it can."""
        if path in self.staying:
            return self.staying[path]
        module = self.model.get_submodule(path)
        inner = [part for part in module.modules() if part is not module]
        own = "forward" in vars(module) or any(_listens(part) or "forward" in vars(part) for part in inner)
        zeros = [node for node in self._leaving(path) if node in self.unchanged.nothing]
        if own or (zeros and _listens(module)):
            return HEARD
        for node in zeros:
            op = self._stiff_reader(node, path, going)
            if op:
                return BOUND.format(op=op)
        unread = [n for n in self._leaving(path) if n not in self.unchanged.nothing and n not in self.unchanged.same]
        return FED if any(self._feeds_what_stays(node, going) for node in unread) else ""

    def _feeds_what_stays(self, node: fx.Node, going: frozenset[str]) -> bool:
        """Whether the op that turns a value which nobody needs into zeros is in no module that goes."""
        waiting, seen = list(node.users), {node}
        while waiting:
            user = waiting.pop()
            around = self.around.get(user, frozenset())
            if user in seen or around & going:
                continue
            seen.add(user)
            if user in self.unchanged.nothing:
                return True
            waiting += user.users
        return False

    def _stiff_reader(self, node: fx.Node, path: str, going: frozenset[str]) -> str:
        """The first op that needs the shape of zeros which a module hands out."""
        waiting, seen = [(node, user) for user in node.users], set()
        while waiting:
            value, user = waiting.pop()
            if (value, user) in seen:
                continue
            seen.add((value, user))
            around = self.around.get(user, frozenset())
            if path in around:
                continue
            if user in self.unchanged.same and written_argument(user) is not value:
                continue  # they are added to something
            if user in self.unchanged.nothing:
                loose = torch.Tag.pointwise in getattr(user.target, "tags", ()) or short_name(user.target) in SPREADING
                if not (loose or around & going):
                    return short_name(user.target)
                waiting += [(user, other) for other in user.users]
            elif user in self.unchanged.working or user in self.unchanged.same or user.op == "output":
                return short_name(user.target) if user.op == "call_function" else "the model's output"
        return ""


def _listens(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks or module._backward_hooks)
