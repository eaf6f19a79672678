"""What a model is made of, module by module: so that weights do not go into a model that computes something else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import nn

from surgery.errors import InputError

OF_TRAINING = frozenset({"inplace", "momentum", "p", "dropout", "track_running_stats"})
"""Settings that change nothing of what a model computes in eval mode from the weights that it holds."""

IDLE = "nothing in eval mode"
IDLE_KINDS = frozenset(
    {"Identity", "Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "AlphaDropout", "DropPath", "StochasticDepth"}
)
"""Classes of which one may stand for the other: a model that is no longer trained is often built without dropout."""


@dataclass(frozen=True)
class Part:
    """One module: its class, and for those of `torch.nn` the settings that say what it computes, as text."""

    kind: str
    settings: Mapping[str, str] = field(default_factory=dict)


def anatomy(model: nn.Module) -> dict[str, Part]:
    """Every module of a model by its path, `""` being the model itself."""
    return {path: _part(module) for path, module in model.named_modules(remove_duplicate=False)}


def check_anatomy(saved: Mapping[str, Part], model: nn.Module, where: str, way_out: str) -> None:
    """Hold a model that was cut again against the one that was saved.

    Raises:
        InputError: A module is of another class, or is set to compute something else.
    """
    here = anatomy(model)
    if odd := sorted(saved.keys() ^ here.keys()):
        holder = "the model that was saved" if odd[0] in saved else "the given model"
        raise InputError(f"{where} is of another model: only {holder} has a module {odd[0]!r}", way_out)
    for path, part in saved.items():
        named = path or "the model itself"
        if part.kind != here[path].kind and part.kind not in _bases(model, path):
            raise InputError(f"{where} is of another model: {named} was {part.kind}, here {here[path].kind}", way_out)
        for name in sorted(part.settings.keys() & here[path].settings.keys()):  # versions of torch know others
            before, now = part.settings[name], here[path].settings[name]
            if before != now:
                raise InputError(f"{where} is of another model: {named} had {name}={before}, here {now}", way_out)


def _bases(model: nn.Module, path: str) -> set[str]:
    """Names of the classes of the user's that a module's class is made of: one that adds to the saved one will do."""
    return {
        kind.__name__ for kind in type(model.get_submodule(path)).__mro__ if not kind.__module__.startswith("torch.")
    }


def _part(module: nn.Module) -> Part:
    kind = type(module)
    if kind.__name__ in IDLE_KINDS:
        return Part(IDLE)
    if not kind.__module__.startswith("torch.nn."):
        return Part(kind.__name__)  # where the user's code lies may change: `__main__` today, a package tomorrow
    names = [name for name in getattr(kind, "__constants__", ()) if name not in OF_TRAINING]
    values = {name: getattr(module, name) for name in names if hasattr(module, name)}
    said = {name: repr(value) for name, value in values.items() if not isinstance(value, nn.Module)}
    return Part(f"torch.nn.{kind.__name__}", said)
