"""The expressions of a model's code that its ops' sizes were computed by, where no attribute can be set for them."""

from __future__ import annotations

import ast
import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from types import CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np
from torch import nn

from surgery.analysis.capture import Program, shapes_of
from surgery.analysis.listening import listen
from surgery.analysis.places import Call
from surgery.calls import short_name
from surgery.coupling import Coupling
from surgery.cutting.methods import Place, UnreadableError, core, feasible, nested, place_of, source_of
from surgery.cutting.sizes import KINDS, Op
from surgery.deciding.parts import Rewrite
from surgery.inputs import Inputs
from surgery.layout import Bools, along

Expression = tuple[ast.expr, int | None]
"""An expression, and which entry of it is meant; None where it is the number."""

Calls = Mapping[str, tuple[Call, ...]]
"""By node, the code from the line that called it out to the method of its module."""

FREE = -1
"""What a view takes for a size that follows from the others."""


def calls_of(model: nn.Module, program: Program, inputs: Inputs) -> Calls:
    """Where in the code the ops of a program were called, by node.

    `torch.export` does not say: its ops are those that are heard, where a module calls as many of a kind and shape.
    """
    if any("calls" in node.meta for node in program.calls):
        return {node.name: node.meta.get("calls", ()) for node in program.calls}
    captured: dict[Any, list[str]] = {}
    for node in program.calls:
        if short_name(node.target) in KINDS:
            key = program.module_of(node.name), _kind(short_name(node.target)), shapes_of(node)
            captured.setdefault(key, []).append(node.name)
    heard: dict[Any, list[tuple[Call, ...]]] = {}
    for one in listen(model, inputs):
        heard.setdefault((one.module, _kind(one.name), one.shapes), []).append(one.calls)
    found: dict[str, tuple[Call, ...]] = {}
    for key, names in captured.items():
        if len(names) == len(heard.get(key, [])):
            found |= dict(zip(names, heard[key], strict=True))
    return found


def _kind(name: str) -> str:
    return CALLED.get(name, (name,))[-1]


def find_rewrites(
    model: nn.Module, program: Program, coupling: Coupling, alive: Bools, calls: Calls, modules: Collection[str]
) -> tuple[Rewrite, ...]:
    """Numbers to write into the code of some modules so that it runs at the new sizes.

    Where one line makes several sizes, a view is told to work it out.

    Args:
        model: The model before the cut.
        program, coupling: What was captured of it.
        alive: Which channels stay, `[n_channels]`.
        calls: Where its ops were called (see `calls_of`).
        modules: Paths of the modules whose code may be rewritten.
    """
    alive_ids = alive[coupling.channel_of]
    found: dict[tuple[Any, ...], list[Rewrite]] = {}
    bound: set[tuple[Any, ...]] = set()
    run: dict[tuple[str, tuple[str, ...]], tuple[_Code, set[ast.expr]]] = {}
    for node in program.calls if modules else ():
        path = program.module_of(node.name)
        if path not in modules or short_name(node.target) not in KINDS:
            continue
        code = _Code.of(model.get_submodule(path), calls.get(node.name, ()))
        if code is None:
            continue
        run.setdefault((path, code.functions), (code, set()))[1].add(code.call)
        at = Op(node, node, coupling, alive, alive_ids)
        for argument, index, old, new in at.numbers():
            expression = code.expression(at, argument, index)
            if expression is None:
                continue
            inner, entry = expression
            free = argument in VIEWED and FREE not in at.before[argument]
            if _over_space(at, argument, index):  # the number would be that of one resolution
                new = FREE if free and new != old else new
            rewrite = Rewrite(path, code.functions, code.place(inner), ast.unparse(inner), old, new, entry)
            key = path, code.functions, rewrite.place, entry
            found.setdefault(key, []).append(rewrite)
            if not free:
                bound.add(key)
    chosen = []
    for key, several in found.items():
        news = {rewrite.new for rewrite in several}
        if len(news) == 1 and any(rewrite.new != rewrite.old for rewrite in several):
            chosen.append(several[0])
        elif len(news) > 1 and key not in bound:
            chosen.append(replace(several[0], new=FREE))
    for (path, functions), (code, visited) in run.items():
        known = [r for several in found.values() for r in several if (r.module, r.functions) == (path, functions)]
        chosen += _elsewhere(code, known, visited)
    return tuple(feasible(model, chosen))


def _over_space(at: Op, argument: str, index: int | None) -> bool:
    """Whether a size that a view was given counts other positions beside its channels (`c * h * w`)."""
    layout = at.layout()
    if argument not in VIEWED or index is None or layout is None:
        return False
    dim = layout.rank - len(at.before[argument]) + index
    block = layout.block_of(dim)
    if block is None:
        return False
    ids = along(block, dim)[0]
    return bool(np.unique(ids).size < ids.size)


def _elsewhere(code: _Code, known: Sequence[Rewrite], visited: Collection[ast.expr]) -> Iterator[Rewrite]:
    """What stands for one changed size wherever it was met, in views that did not run on these inputs."""
    sizes: dict[str, set[int]] = {}
    first: dict[str, Rewrite] = {}
    for rewrite in known:
        if rewrite.index is None:
            sizes.setdefault(rewrite.text, set()).add(rewrite.new)
            first.setdefault(rewrite.text, rewrite)
    sure = {
        text: one
        for text, one in first.items()
        if len(sizes[text]) == 1 and one.old != one.new and not text.isdecimal()  # a number stands for anything
    }
    for call in code.calls() if sure else ():
        if call in visited or _called(call) not in CALLED["view"]:
            continue
        elements = [
            e for argument in call.args for e in (argument.elts if isinstance(argument, ast.Tuple) else [argument])
        ]
        for element in elements:
            if (one := sure.get(ast.unparse(element))) is not None:
                yield replace(one, place=code.place(element))


VIEWED = frozenset({"size", "shape"})
"""Arguments that are all the sizes of a tensor, of which a view may be told one less."""
UNPACKED = VIEWED | {"repeats", "dims"}
"""Arguments that may come as several."""
CALLED = {
    "view": ("view", "reshape"),
    "reshape": ("view", "reshape"),
    "_unsafe_view": ("view", "reshape"),
    "view_copy": ("view", "reshape"),
    "split_with_sizes": ("split", "split_with_sizes"),
    "constant_pad_nd": ("pad",),
}
"""What the functions are called that end in an op of another name."""
KEYWORDS = ("split_size_or_sections",)
"""Names of arguments that are not the op's."""


@dataclass(frozen=True)
class _Code:
    """The call of an op in the source of a method, or of a function that it calls.

    Attributes:
        functions: The names from the method to the function that holds the call.
        function: The latter.
        call: The expression that calls the op.
    """

    functions: tuple[str, ...]
    function: FunctionType
    call: ast.Call | ast.Subscript

    @classmethod
    def of(cls, module: nn.Module, calls: Sequence[Call]) -> _Code | None:
        """The call of an op; None where its source cannot be had, or is not reached from the method."""
        if not calls or type(module).__module__.startswith("torch.nn."):
            return None
        names: list[str] = []
        function: FunctionType | None = None
        for code in reversed(_outermost([code for code, _ in calls])):
            name = code.co_name if function is not None else _attribute(type(module), code.co_name)
            known = getattr(type(module), name, None) if function is None else function.__globals__.get(name)
            function = core(known)
            if function is None or _definition(function.__code__) != _definition(code):
                return None
            names.append(name)
        assert function is not None, "there is one call at least"
        code, instruction = calls[0]
        _, end, _, end_column = next(itertools.islice(code.co_positions(), instruction // 2, None))
        try:
            expression = _ending(function.__code__, end, end_column)
        except UnreadableError:
            return None
        return None if expression is None else cls(tuple(names), function, expression)

    def place(self, expression: ast.expr) -> Place:
        """Where an expression is, its lines counted from the function's first."""
        first = self.function.__code__.co_firstlineno
        line, column, end, end_column = place_of(expression)
        return line - first, column, end - first, end_column

    def calls(self) -> list[ast.Call]:
        """All calls in the function."""
        code = self.function.__code__
        for node in ast.walk(source_of(code)):
            decorated = [d.lineno for d in getattr(node, "decorator_list", [])]
            if isinstance(node, ast.FunctionDef) and min(decorated, default=node.lineno) == code.co_firstlineno:
                return [call for call in ast.walk(node) if isinstance(call, ast.Call)]
        return []

    def expression(self, at: Op, argument: str, index: int | None) -> Expression | None:
        """Where one of the op's numbers comes from: an expression, and which entry of it where it is several sizes.

        None where it is left to the op, or cannot be told.
        """
        found = (
            self._indexed(at, argument) if isinstance(self.call, ast.Subscript) else self._passed(at, argument, index)
        )
        if found is None or isinstance(found[0], ast.Starred) or ast.unparse(found[0]) == str(FREE):
            return None
        return found

    def _passed(self, at: Op, argument: str, index: int | None) -> Expression | None:
        """An argument of a call; `view(b, n, c)`, `view((b, n, c))`, `view(shape)` and `view(*shape, c)` are alike."""
        assert isinstance(self.call, ast.Call), "asked of one"
        if _called(self.call) not in CALLED.get(at.name, (at.name,)):
            return None
        keywords = {keyword.arg: keyword.value for keyword in self.call.keywords}
        given = next((keywords[key] for key in (argument, *KEYWORDS) if key in keywords), None)
        order = [name for name in at.before if name != "input" or not self._is_method()]
        arguments = self.call.args[order.index(argument) :]
        if given is None and not arguments:
            return None
        if index is None:
            return given or arguments[0], None
        several = [given] if given is not None else arguments if argument in UNPACKED else arguments[:1]
        if len(several) == 1 and isinstance(several[0], ast.Tuple | ast.List):
            several = several[0].elts
        elif len(several) == 1 and not isinstance(several[0], ast.Starred) and len(at.before[argument]) > 1:
            return several[0], index
        return _entry(several[: len(at.before[argument])], index, len(at.before[argument]))

    def _is_method(self) -> bool:
        """Whether the op is called as a method of a tensor, and not as a function of a module."""
        assert isinstance(self.call, ast.Call), "asked of one"
        owner: ast.expr = self.call.func
        if isinstance(owner, ast.Name):
            return False
        while isinstance(owner, ast.Attribute):
            owner = owner.value
        return not (isinstance(owner, ast.Name) and isinstance(self.function.__globals__.get(owner.id), ModuleType))

    def _indexed(self, at: Op, argument: str) -> Expression | None:
        """A bound of `x[..., a:b]`, where nothing but slices is in the brackets."""
        assert isinstance(self.call, ast.Subscript), "asked of one"
        layout = at.layout("input")
        inside = self.call.slice
        items = inside.elts if isinstance(inside, ast.Tuple) else [inside]
        dots = [i for i, item in enumerate(items) if isinstance(item, ast.Constant) and item.value is ...]
        if layout is None or at.name != "slice" or len(dots) > 1:
            return None
        if not all(isinstance(item, ast.Slice) or i in dots for i, item in enumerate(items)):
            return None
        dim = at.before["dim"] % layout.rank
        place = dim if not dots or dim < dots[0] else dim - layout.rank + len(items)
        if place >= len(items) or (dots and dim >= dots[0] >= place):  # one that the dots stand for
            return None
        item = items[place]
        found = getattr(item, {"start": "lower", "end": "upper"}[argument], None)
        return None if found is None else (found, None)


def _called(call: ast.Call) -> str:
    """The last name of what is called."""
    function = call.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _attribute(kind: type[nn.Module], name: str) -> str:
    """What a method is called from outside: Python mangles names with two underscores."""
    mangled = [f"_{owner.__name__.lstrip('_')}{name}" for owner in kind.__mro__]
    return next((found for found in mangled if hasattr(kind, found)), name)


def _outermost(codes: Sequence[CodeType]) -> list[CodeType]:
    """The codes without those that lie inside the next (comprehensions)."""
    return [
        code for i, code in enumerate(codes) if i + 1 == len(codes) or not any(c is code for c in nested(codes[i + 1]))
    ]


def _definition(code: CodeType) -> tuple[str, str, int]:
    return code.co_filename, code.co_name, code.co_firstlineno


@cache
def _endings(code: CodeType) -> dict[tuple[int, int], ast.Call | ast.Subscript]:
    """The calls and subscripts around a function, by where they end: no two end at one place."""
    walked = ast.walk(source_of(code))
    return {place_of(node)[2:]: node for node in walked if isinstance(node, ast.Call | ast.Subscript)}


def _ending(code: CodeType, line: int | None, column: int | None) -> ast.Call | ast.Subscript | None:
    return _endings(code).get((line, column)) if line is not None and column is not None else None


def _entry(several: Sequence[ast.expr], index: int, length: int) -> Expression | None:
    """The expression of one of `length` sizes, of which some may come unpacked."""
    stars = [place for place, one in enumerate(several) if isinstance(one, ast.Starred)]
    if not stars:
        return (several[index], None) if len(several) == length else None
    behind = len(several) - stars[0] - 1
    if len(stars) > 1:
        return None
    if index < stars[0]:
        return several[index], None
    if index >= length - behind:
        return several[index - length], None
    star = several[stars[0]]
    assert isinstance(star, ast.Starred), "found above"
    return star.value, index - stars[0]
