from __future__ import annotations

from pathlib import Path

import pytest

from surgery.exporting import export
from tests.quantizing.nets import convnet, pictures, tokens, transformer


@pytest.fixture(scope="session")
def conv_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The convolutional net as a float file, with a free batch."""
    return export(convnet(), tmp_path_factory.mktemp("float") / "conv.onnx", pictures(2)).path


@pytest.fixture(scope="session")
def token_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The transformer as a float file, with a free batch."""
    return export(transformer(), tmp_path_factory.mktemp("float") / "tokens.onnx", (), tokens()).path
