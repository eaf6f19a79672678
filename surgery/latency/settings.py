"""The arguments of a benchmark, checked before anything is started."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from surgery.errors import InputError
from surgery.latency.precisions import PRECISIONS
from surgery.latency.results import Settings
from surgery.latency.runtimes import runtime_named


def checked_settings(
    *,
    runtimes: Sequence[str] | str,
    threads: Sequence[int] | int,
    batch_sizes: Sequence[int] | int | None,
    devices: Sequence[str] | str,
    min_pairs: int,
    min_seconds: float,
    max_seconds: float,
    seed: int,
    precisions: Sequence[str] | str,
) -> Settings:
    """The arguments as `Settings`; a single value stands for a tuple of one, and repeats count once.

    Raises:
        InputError: A value is out of range, or names a runtime or a device that there is not.
    """
    names = _several("runtimes", runtimes)
    for name in names:
        runtime_named(name)
    places = _several("devices", devices)
    for place in places:
        _check_device(place)
    formats = _several("precisions", precisions)
    for name in formats:
        if name not in PRECISIONS:
            raise InputError(f"there is no precision {name!r}", f"known precisions: {', '.join(PRECISIONS)}")
    sizes = None if batch_sizes is None else _several("batch_sizes", batch_sizes)
    for argument, values in (("threads", _several("threads", threads)), ("batch_sizes", sizes or ())):
        for value in values:
            _check_count(argument, value, 1)
    _check_count("min_pairs", min_pairs, 2)
    if not 0 <= min_seconds <= max_seconds < float("inf"):
        raise InputError(
            f"min_seconds is {min_seconds} and max_seconds is {max_seconds}",
            "give 0 <= min_seconds <= max_seconds, both in seconds",
        )
    counts = _several("threads", threads)
    return Settings(names, counts, sizes, places, min_pairs, min_seconds, max_seconds, seed, formats)


def check_models(models: Mapping[str, Any]) -> None:
    """Raise `InputError` unless `models` maps at least one name to a module or a path."""
    if not isinstance(models, Mapping) or not models:
        raise InputError("there are no models to benchmark", 'pass a dict such as {"masked": a, "slim": b}')
    for name, model in models.items():
        if not isinstance(model, nn.Module | str | os.PathLike):
            way_out = "pass a torch.nn.Module, or the path of an exported file, for every name"
            raise InputError(f"models[{name!r}] is a {type(model).__name__}", way_out)


def _several(argument: str, values: Any) -> tuple[Any, ...]:
    single = isinstance(values, str) or not isinstance(values, Iterable)
    several = (values,) if single else tuple(dict.fromkeys(values))
    if not several:
        raise InputError(f"{argument} is empty", f"name at least one of the {argument}")
    return several


def _check_count(argument: str, value: Any, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InputError(f"{argument} holds {value!r}", f"give whole numbers from {least} on")


def _check_device(name: str) -> None:
    kind, _, index = name.partition(":") if isinstance(name, str) else (name, "", "")
    if name != "cpu" and (kind != "cuda" or (":" in str(name) and not index.isdigit())):
        raise InputError(f"the device {name!r} cannot be benchmarked", "known devices: cpu, cuda, cuda:0, cuda:1, ...")
    if kind == "cuda" and not torch.cuda.is_available():
        raise InputError(
            f"the device {name!r} was asked for, but torch {torch.__version__} sees no CUDA here",
            "leave it out of devices, or install a torch built for CUDA on a machine with such a GPU",
        )
    if index and int(index) >= torch.cuda.device_count():
        raise InputError(f"there is no device {name!r}", f"this machine has {torch.cuda.device_count()} CUDA devices")
