from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn

from surgery.errors import InputError
from surgery.sources import is_library_model, load_model
from surgery.sources.models import FORMS


def test_a_saved_directory_is_opened_by_the_door_that_is_given(tmp_path: Path) -> None:
    (tmp_path / "surgery.json").touch()
    model = nn.Linear(1, 1)
    opened = []

    def open_saved(directory: Path) -> nn.Module:
        opened.append(directory)
        return model

    loaded = load_model(str(tmp_path), open_saved=open_saved)
    assert loaded.model is model
    assert loaded.kind == "saved"
    assert opened == [tmp_path]
    with pytest.raises(InputError, match=r"was written by surgery\n  -> open it with surgery.load\(directory, a fresh"):
        load_model(str(tmp_path))


def test_malformed_specs(tmp_path: Path) -> None:
    (tmp_path / "weights.pt").touch()
    cases = {
        "resnet18": "the model 'resnet18' is none of the known forms, and no directory",
        "./nowhere": "the model './nowhere' is none of the known forms, and no directory",
        "": "the model '' is none of the known forms, and no directory",
        "timm:": "the model 'timm:' lacks what belongs after the colon",
        ":make": "the model ':make' lacks what belongs before the colon",
        str(tmp_path): f"the directory {str(tmp_path)!r} holds neither config.json nor surgery.json",
    }
    for spec, fact in cases.items():
        with pytest.raises(InputError) as caught:
            load_model(spec)
        assert (caught.value.fact, caught.value.way_out) == (fact, FORMS)
    with pytest.raises(InputError, match=r"weights.pt' is a file\n  -> give it as the checkpoint, beside"):
        load_model(str(tmp_path / "weights.pt"))


def test_which_models_can_be_built_without_the_users_code() -> None:
    assert is_library_model("timm:resnet18")
    assert not is_library_model("package.module:factory")
    assert not is_library_model("timm")
