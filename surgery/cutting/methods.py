"""Methods of single modules with numbers in the place of sizes that their code computes.

Code such as `x.reshape(b, n, c)`, with `c` read off an input that stays as wide as it is, cannot run narrower, and no
attribute says otherwise. For the one module it runs as `x.reshape(b, n, 48)` then: the source of the method is compiled
again with the number in it, at its own lines, and called in the method's place. The class stays what it is.
"""

from __future__ import annotations
import __future__

import ast
import copy
import linecache
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache, partial
from types import CellType, CodeType, FunctionType
from typing import Any, Self

from torch import nn

from surgery.deciding.parts import Rewrite
from surgery.errors import PlanError

FUTURE = sum(getattr(__future__, name).compiler_flag for name in __future__.all_feature_names)
WAY_OUT = "apply the plan to the code that it was made from, or make it again"


class UnreadableError(Exception):
    """The source of a function cannot be had, or is not what runs."""


class Rewritten(partial[Any]):
    """A method of one module, rewritten; it can be copied and pickled with its module."""

    rewrites: tuple[Rewrite, ...]

    def __new__(cls, module: nn.Module, name: str, rewrites: tuple[Rewrite, ...]) -> Self:  # noqa: D102
        made = super().__new__(cls, _rewritten(getattr(type(module), name), name, rewrites), module)
        made.rewrites = rewrites
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.args[0], self.rewrites[0].functions[0], self.rewrites)


def rewrite_(model: nn.Module, rewrites: Sequence[Rewrite]) -> None:
    """Put numbers in the place of expressions; those of a method that was rewritten before stay.

    Raises:
        PlanError: The model has no such module or method, or its code is another.
    """
    for (path, name), coming in _by_method(rewrites).items():
        try:
            module = model.get_submodule(path)
            vars(module)[name] = _method(module, name, coming)
        except (AttributeError, UnreadableError) as error:
            raise PlanError(f"{path or 'the model'}.{name} cannot be rewritten: {error}", WAY_OUT) from error


def feasible(model: nn.Module, rewrites: Sequence[Rewrite]) -> Iterator[Rewrite]:
    """Those of methods that can be rewritten: not every decorator can be taken apart."""
    for (path, name), coming in _by_method(rewrites).items():
        try:
            _method(model.get_submodule(path), name, coming)
        except UnreadableError:
            continue
        yield from coming


def _by_method(rewrites: Sequence[Rewrite]) -> dict[tuple[str, str], list[Rewrite]]:
    found: dict[tuple[str, str], list[Rewrite]] = {}
    for rewrite in rewrites:
        found.setdefault((rewrite.module, rewrite.functions[0]), []).append(rewrite)
    return found


def _method(module: nn.Module, name: str, coming: Sequence[Rewrite]) -> Rewritten:
    """A method with further numbers in it; what some libraries put in a method's place is not ours to replace."""
    known = vars(module).get(name)
    if known is not None and not isinstance(known, Rewritten):
        raise UnreadableError("the module has another in its place")
    merged = {(r.functions, r.place, r.index): r for r in (*(known.rewrites if known else ()), *coming)}
    return Rewritten(module, name, tuple(merged.values()))


def _rewritten(function: Callable[..., Any], name: str, rewrites: Sequence[Rewrite]) -> Callable[..., Any]:
    """The function with its own expressions replaced, and calling others in which theirs are."""
    inner = core(function)
    if inner is None:
        raise UnreadableError(f"{name} is no Python function")
    own = tuple((r.place, r.text, r.index, r.new) for r in rewrites if len(r.functions) == 1)
    code = _compiled(inner.__code__, own) if own else inner.__code__
    named = inner.__globals__
    for callee in dict.fromkeys(rewrite.functions[1] for rewrite in rewrites if len(rewrite.functions) > 1):
        further = [replace(r, functions=r.functions[1:]) for r in rewrites if r.functions[1:2] == (callee,)]
        if callee not in named:
            raise UnreadableError(f"{name} knows no function {callee}")
        named = {**named, callee: _rewritten(named[callee], callee, further)}
    cells = dict(zip(inner.__code__.co_freevars, inner.__closure__ or (), strict=True))
    made = FunctionType(code, named, inner.__name__, inner.__defaults__, tuple(cells[n] for n in code.co_freevars))
    _dress_(made, inner)
    return _wrapped_again(function, inner, made)


def core(function: Any) -> FunctionType | None:
    """The Python function inside its decorators."""
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    return function if isinstance(function, FunctionType) else None


def _wrapped_again(function: Any, inner: FunctionType, made: FunctionType) -> Callable[..., Any]:
    """Decorators around `made` as they are around `inner`."""
    if function is inner:
        return made
    below = _wrapped_again(function.__wrapped__, inner, made)
    cells = getattr(function, "__closure__", None) or ()
    changed = tuple(CellType(below) if _holds(cell, function.__wrapped__) else cell for cell in cells)
    if not isinstance(function, FunctionType) or changed == cells:
        raise UnreadableError(f"a decorator of {inner.__name__} cannot be taken apart")
    outer = FunctionType(function.__code__, function.__globals__, function.__name__, function.__defaults__, changed)
    _dress_(outer, function)
    outer.__dict__["__wrapped__"] = below
    return outer


def _holds(cell: CellType, value: Any) -> bool:
    try:
        return cell.cell_contents is value
    except ValueError:  # an empty cell
        return False


def _dress_(made: FunctionType, like: FunctionType) -> None:
    made.__kwdefaults__, made.__doc__, made.__module__ = like.__kwdefaults__, like.__doc__, like.__module__
    made.__qualname__, made.__annotations__ = like.__qualname__, like.__annotations__
    made.__dict__.update(like.__dict__)


Place = tuple[int, int, int, int]
"""First line, column, last line, column of an expression; columns in bytes, as Python counts them."""
Change = tuple[Place, str, int | None, int]
"""Place (lines count from the function's first), text, entry (None for all of it), and the number to put there."""


@cache
def _compiled(code: CodeType, changes: tuple[Change, ...]) -> CodeType:
    """The code of a function with expressions replaced."""
    numbers = _Numbers(code.co_firstlineno, changes)
    source = numbers.visit(copy.deepcopy(source_of(code)))
    if numbers.wanted:
        (line, *_), text = next(iter(numbers.wanted))
        raise UnreadableError(f"line {line} of {code.co_filename} has no {text!r}")
    return _code_of(source, code)


class _Numbers(ast.NodeTransformer):
    """Puts numbers in the place of expressions; what is left in `wanted` afterwards is not there."""

    def __init__(self, first: int, changes: Sequence[Change]) -> None:
        self.wanted: dict[tuple[Place, str], list[tuple[int | None, int]]] = {}
        for (line, column, end, end_column), text, index, new in changes:
            place = first + line, column, first + end, end_column
            self.wanted.setdefault((place, text), []).append((index, new))

    def visit(self, node: ast.AST) -> Any:
        """The node, or what stands in its place."""
        if not isinstance(node, ast.expr) or (place_of(node), ast.unparse(node)) not in self.wanted:
            return self.generic_visit(node)
        made: ast.expr = node
        for index, new in self.wanted.pop((place_of(node), ast.unparse(node))):
            made = ast.Constant(new) if index is None else _with_entry(made, index, new)
        return ast.fix_missing_locations(ast.copy_location(made, node))


def _with_entry(sizes: ast.expr, index: int, new: int) -> ast.expr:
    """`sizes` with one entry another, as an expression."""
    call: Any = ast.parse(f"(lambda s: (*s[:{index}], {new}, *s[{index + 1}:]))(None)", mode="eval").body
    for part in ast.walk(call):
        ast.copy_location(part, sizes)
    call.args = [sizes]
    made: ast.expr = call
    return made


def place_of(node: ast.expr) -> Place:
    """Where an expression is in its file."""
    return node.lineno, node.col_offset, node.end_lineno or node.lineno, node.end_col_offset or 0


@cache
def source_of(code: CodeType) -> ast.Module:
    """What a function's code is compiled of: the top-level statement that holds it, and the imports above.

    Raises:
        UnreadableError: There is no source, or it is not what runs.
    """
    try:
        tree = ast.parse("".join(linecache.getlines(code.co_filename)))
    except SyntaxError as error:
        raise UnreadableError(f"{code.co_filename} is not Python") from error
    # the compiler has another instruction for methods of what is imported
    imports = [
        statement for statement in tree.body if isinstance(statement, ast.Import | ast.ImportFrom | ast.If | ast.Try)
    ]
    for statement in tree.body:
        first = min((d.lineno for d in getattr(statement, "decorator_list", [])), default=statement.lineno)
        if first <= code.co_firstlineno <= (statement.end_lineno or statement.lineno):
            source = ast.Module([*(s for s in imports if s is not statement), statement], [])
            if _code_of(source, code).co_code != code.co_code:
                raise UnreadableError(f"{code.co_filename} has changed since it was imported")
            return source
    raise UnreadableError(f"the source of {code.co_name} cannot be had")


def _code_of(source: ast.Module, like: CodeType) -> CodeType:
    """The code of a function, from the statements that hold it."""
    whole = compile(source, like.co_filename, "exec", flags=like.co_flags & FUTURE, dont_inherit=True)
    for code in nested(whole):
        if (code.co_name, code.co_firstlineno) == (like.co_name, like.co_firstlineno):
            return code
    raise UnreadableError(f"{like.co_filename} has no {like.co_name} at line {like.co_firstlineno}")


def nested(code: CodeType) -> Iterator[CodeType]:
    """All code inside of some code."""
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from nested(constant)
