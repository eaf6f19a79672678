"""A model from the user's own code: `package.module:factory`."""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Callable
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
    path, _, name = spec.partition(":")
    if path.endswith(".py") or "/" in path or os.sep in path:
        dotted = ".".join(Path(path).with_suffix("").parts).strip(".")
        raise InputError(f"{path!r} is a path, not a module", f"write {dotted}:{name}, from the directory above it")
    factory = _attribute(_imported(path), name, spec)
    if isinstance(factory, nn.Module):
        raise InputError(
            f"{spec!r} is a model ({type(factory).__name__}), not a factory",
            f"name a function without arguments that returns it: def make(): return {name}",
        )
    if not callable(factory):
        raise InputError(f"{spec!r} is a {type(factory).__name__}, which is not callable", _wanted())
    _refuse_arguments(factory, spec)
    try:
        model = factory()
    except (Exception, SystemExit) as error:
        raise InputError(f"{spec!r} raised {_told(error)}", "make the factory work on its own first") from error
    if not isinstance(model, nn.Module):
        raise InputError(f"{spec!r} returned a {type(model).__name__}, not an nn.Module", _wanted())
    return model


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
