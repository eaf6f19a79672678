from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from surgery.checkpoints import save
from tests.checkpoints.nets import result


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("saved") / "slim"
    save(result(), directory)
    return directory


@pytest.fixture
def slim(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "slim"))
