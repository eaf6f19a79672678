"""A model, data or a function from the user's own code: `package.module:name`. Naming it is the consent to run it."""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from surgery.errors import InputError


def from_factory(spec: str) -> nn.Module:
    """Import `package.module` with the current directory on `sys.path`, call `factory()`, return its model.

    Raises:
        InputError: no such module or attribute, not callable without arguments, raised, or returned something else.
    """
    factory = _named(spec)
    if isinstance(factory, nn.Module):
        raise InputError(
            f"{spec!r} is a model ({type(factory).__name__}), not a factory",
            f"name a function without arguments that returns it: def make(): return {spec.partition(':')[2]}",
        )
    model = _called(factory, spec, _wanted())
    if not isinstance(model, nn.Module):
        raise InputError(f"{spec!r} returned a {type(model).__name__}, not an nn.Module", _wanted())
    return model


def data_from(spec: str) -> Any:
    """The data that `package.module:name` names, such as a DataLoader, or what it returns when it is called.

    Raises:
        InputError: no such module or attribute, neither data nor callable without arguments, or it raised.
    """
    found = _named(spec)
    if not callable(found) and isinstance(found, Iterable) and not isinstance(found, str | bytes):
        return found
    return _called(found, spec, "name a DataLoader, or a function without arguments that returns the data")


def function_from(spec: str) -> Callable[..., Any]:
    """The function `package.module:name` itself.

    Raises:
        InputError: no such module or attribute, or it is not callable.
    """
    return _callable(_named(spec), spec, "name a function")


def _named(spec: str) -> Any:
    """What `package.module:name` names."""
    path, colon, name = spec.partition(":")
    if not (path and colon and name):
        raise InputError(f"{spec!r} names nothing to import", "write package.module:name")
    if path.endswith(".py") or "/" in path or os.sep in path:
        dotted = ".".join(Path(path).with_suffix("").parts).strip(".")
        raise InputError(f"{path!r} is a path, not a module", f"write {dotted}:{name}, from the directory above it")
    return _attribute(_imported(path), name, spec)


def _callable(found: Any, spec: str, wanted: str) -> Callable[..., Any]:
    if not callable(found):
        raise InputError(f"{spec!r} is a {type(found).__name__}, which is not callable", wanted)
    function: Callable[..., Any] = found
    return function


def _called(factory: Any, spec: str, wanted: str) -> Any:
    """What the factory returns."""
    make = _callable(factory, spec, wanted)
    _refuse_arguments(make, spec)
    try:
        return make()
    except (Exception, SystemExit) as error:
        raise InputError(f"{spec!r} raised {_told(error)}", "make the factory work on its own first") from error


def _wanted() -> str:
    return "name a function without arguments (or a class) that returns the model"


def _imported(path: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)  # and it stays: the model may import more when it runs
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError as error:
        if error.name and (path == error.name or path.startswith(error.name + ".")):
            raise InputError(
                f"there is no module {error.name!r} in {here} or among the installed packages",
                "run from the directory that holds it, or install it",
            ) from error
        raise InputError(f"the module {path!r} needs {error.name!r}, which is not installed", "install it") from error
    except (Exception, SystemExit) as error:
        raise InputError(
            f"importing {path!r} raised {_told(error)}", "make the import work on its own first"
        ) from error


def _attribute(module: ModuleType, name: str, spec: str) -> Any:
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            near = difflib.get_close_matches(part, [known for known in dir(found) if known[0] != "_"], n=1)
            raise InputError(
                f"{module.__name__!r} has no {name!r}", f"did you mean {near[0]!r}?" if near else f"check {spec!r}"
            )
        found = getattr(found, part)
    return found


def _refuse_arguments(factory: Callable[..., Any], spec: str) -> None:
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):  # builtins have none
        return
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = [p.name for p in signature.parameters.values() if p.default is p.empty and p.kind not in variadic]
    if needed:
        raise InputError(
            f"{spec!r} needs arguments: {', '.join(needed)}", "name a factory that is called without arguments"
        )


def _told(error: BaseException) -> str:
    """Kind, message and place of an error in the user's code, on one line."""
    message = str(error).partition("\n")[0]
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}{f': {message}' if message else ''} ({Path(where.filename).name}:{where.lineno})"
