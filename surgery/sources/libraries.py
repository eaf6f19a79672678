"""Models of the libraries that most checkpoints come from: torchvision, timm, transformers."""

from __future__ import annotations

import difflib
import importlib
import inspect
import json
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import torch
from torch import nn

from surgery.errors import InputError, MissingExtraError

T = TypeVar("T")

SEED = 0
"""Random weights are the same at every call."""

RANDOM = f"random weights (seed {SEED}); give a checkpoint for trained ones"
OTHER_WEIGHTS = frozenset({".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".h5", ".msgpack", ".npz"})
TRANSFORMERS_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)


def from_torchvision(name: str) -> nn.Module:
    """A torchvision model by its name, with random weights.

    Raises:
        InputError: torchvision cannot be imported beside this torch, or has no such model.
    """
    models = _library("torchvision").models
    if name not in models.list_models():
        raise _unknown("torchvision", name, models.list_models())
    # detection and segmentation models fetch a trained backbone unless told not to
    has_backbone = "weights_backbone" in inspect.signature(models.get_model_builder(name)).parameters
    settings = {"weights_backbone": None} if has_backbone else {}
    model: nn.Module = _built(f"torchvision:{name}", lambda: models.get_model(name, weights=None, **settings))
    return model


def from_timm(name: str) -> nn.Module:
    """A timm model by its name, with random weights.

    Raises:
        InputError: timm or the torchvision that it needs cannot be imported, or there is no such model.
    """
    _library("torchvision")
    timm = _library("timm")
    if not timm.is_model(name):
        raise _unknown("timm", name, timm.list_models())
    model: nn.Module = _built(f"timm:{name}", lambda: timm.create_model(name, pretrained=False))
    return model


def from_transformers(directory: Path, *, weights: bool = True, trust: bool = False) -> tuple[nn.Module, str]:
    """The model of a transformers directory, and a note that says where its weights came from.

    The class is the one that `config.json` names, so that its head is kept; `AutoModel` where it names none.

    Args:
        directory: With a `config.json` inside; nothing is fetched.
        weights: False to leave the directory's weights unread, since others follow.
        trust: Allow the directory's own Python code to run.

    Raises:
        InputError: the config cannot be read, needs code that is not trusted, or weights are missing or do not fit.
    """
    settings = _config(directory)
    if "auto_map" in settings and not trust:
        raise InputError(
            f"{str(directory)!r} holds Python code of its own (auto_map in config.json)",
            "read it, and pass trust=True if you trust it",
        )
    transformers = _library("transformers")
    known = (getattr(transformers, name, None) for name in _architectures(settings))
    named = [kind for kind in known if isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)]
    _refuse_other_weights(directory, weights)
    options = {"trust_remote_code": trust, "local_files_only": True}
    maker: Any = transformers.AutoModel if not named or "auto_map" in settings else named[0]
    if weights and any((directory / name).is_file() for name in TRANSFORMERS_WEIGHTS):
        model, info = _built(
            str(directory), lambda: maker.from_pretrained(directory, output_loading_info=True, **options)
        )
        if missing := sorted(info["missing_keys"]):
            listed = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
            raise InputError(
                f"the weights in {str(directory)!r} lack {len(missing)} of {type(model).__name__}: {listed}",
                "correct `architectures` in config.json; weights saved masked go in as a checkpoint",
            )
        unused = len(info["unexpected_keys"])
        return model, f"{type(model).__name__} from {directory}" + (f", {unused} weights unused" if unused else "")

    def from_config() -> nn.Module:
        config = transformers.AutoConfig.from_pretrained(directory, **options)
        if maker is transformers.AutoModel:
            built: nn.Module = maker.from_config(config, trust_remote_code=trust)
        else:
            built = maker(config)
        return built

    model = _built(str(directory), from_config)
    return model, f"{type(model).__name__} from {directory}" + (f": no weights in it, {RANDOM}" if weights else "")


def _config(directory: Path) -> dict[str, Any]:
    path = directory / "config.json"
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"{str(path)!r} cannot be read: {reason}", "copy the directory again") from error
    if not isinstance(settings, dict) or "model_type" not in settings:
        raise InputError(f"{str(path)!r} names no model_type", "give a directory that save_pretrained wrote")
    return settings


def _architectures(settings: dict[str, Any]) -> list[str]:
    """The names of classes in a config."""
    found = settings.get("architectures")
    return [name for name in found if isinstance(name, str)] if isinstance(found, list) else []


def _refuse_other_weights(directory: Path, weights: bool) -> None:
    """Random weights are never taken for those that lie there in another form.

    Raises:
        InputError: There are weights, but none that are read; or an adapter, which would be left out.
    """
    if (directory / "adapter_config.json").is_file():
        merge = "merge it first: model.merge_and_unload().save_pretrained(directory)"
        raise InputError(f"{str(directory)!r} holds an adapter beside the model", merge)
    if not weights or any((directory / name).is_file() for name in TRANSFORMERS_WEIGHTS):
        return
    if others := sorted(path.name for path in directory.iterdir() if path.suffix in OTHER_WEIGHTS):
        raise InputError(
            f"{str(directory)!r} has no weights under a name that transformers reads, but {others[0]!r}",
            "name them model.safetensors, or give them as the checkpoint",
        )


def _library(name: str) -> ModuleType:
    """The imported package, or one line that says why not."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise MissingExtraError(name, "models") from error
    except (RuntimeError, ImportError, OSError) as error:
        raise _mismatch(error) from error


def _mismatch(error: Exception) -> InputError:
    version = metadata.version("torchvision")
    reason = str(error).partition("\n")[0]
    return InputError(
        f"torchvision {version} cannot be imported beside torch {torch.__version__}: {reason}",
        "its wheel was built for another torch (CUDA beside CPU): install both from one index, "
        "as https://download.pytorch.org/whl/cpu",
    )


def _unknown(library: str, name: str, known: Iterable[str]) -> InputError:
    near = difflib.get_close_matches(name, list(known), n=3)
    way_out = f"near: {', '.join(near)}" if near else f"{library} lists its models with list_models()"
    return InputError(f"{library} has no model {name!r}", way_out)


def _built(what: str, make: Callable[[], T]) -> T:
    """The result of `make()`, with reproducible random weights, and its failure as one line."""
    try:
        with torch.random.fork_rng(devices=[]), _quiet():
            torch.manual_seed(SEED)
            return make()
    except InputError:
        raise
    except Exception as error:
        if "torchvision::" in str(error):
            raise _mismatch(error) from error
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"{what} cannot be built: {type(error).__name__}: {reason}", "try it in the library"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the libraries' own warnings: about their future, not about this model."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
