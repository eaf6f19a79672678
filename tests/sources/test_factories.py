from __future__ import annotations

import sys
from pathlib import Path

import pytest
from torch import nn

from surgery.errors import InputError
from surgery.sources import data_from, load_model

CODE = """
import sys
from torch import nn

def make():
    return nn.Linear(3, 2)

def wide(width):
    return nn.Linear(width, 2)

def broken():
    raise ValueError("no such width: 3\\nmore")

def leaves():
    sys.exit("bye")

def listed():
    return [nn.Linear(1, 1)]

class Net(nn.Linear):
    def __init__(self, size=4):
        super().__init__(size, size)

model = nn.Linear(1, 1)
size = 3
loader = [1, 2]
word = "data"
"""


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with modules of the user's in it; nothing of it stays imported."""
    package = tmp_path / "zoo_of_tests"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "nets.py").write_text(CODE)
    (package / "needy.py").write_text("import no_such_package_anywhere")
    (package / "typo.py").write_text("def make(:\n")
    (package / "fails.py").write_text("x = 1\ny = x / 0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "zoo_of_tests"]:
        del sys.modules[name]


@pytest.mark.usefixtures("workshop")
@pytest.mark.parametrize(("name", "features"), [("make", 3), ("Net", 4)])
def test_a_factory_in_the_current_directory(name: str, features: int) -> None:
    loaded = load_model(f"zoo_of_tests.nets:{name}")
    assert isinstance(loaded.model, nn.Linear)
    assert loaded.model.in_features == features
    assert loaded.model.training
    assert (loaded.kind, loaded.spec, loaded.checkpoint, loaded.notes) == (
        "factory",
        f"zoo_of_tests.nets:{name}",
        None,
        (),
    )


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "zoo_of_tests.net:make",
            "there is no module 'zoo_of_tests.net' in HERE or among the installed packages\n"
            "  -> run from the directory that holds it, or install it",
        ),
        (
            "no_such_package_of_tests.net:make",
            "there is no module 'no_such_package_of_tests' in HERE or among the installed packages\n"
            "  -> run from the directory that holds it, or install it",
        ),
        (
            "zoo_of_tests.needy:make",
            "the module 'zoo_of_tests.needy' needs 'no_such_package_anywhere', which is not installed\n  -> install it",
        ),
        (
            "zoo_of_tests.fails:make",
            "importing 'zoo_of_tests.fails' raised ZeroDivisionError: division by zero (fails.py:2)\n"
            "  -> make the import work on its own first",
        ),
        (
            "zoo_of_tests/nets.py:make",
            "'zoo_of_tests/nets.py' is a path, not a module\n"
            "  -> write zoo_of_tests.nets:make, from the directory above it",
        ),
        ("zoo_of_tests.nets:maek", "'zoo_of_tests.nets' has no 'maek'\n  -> did you mean 'make'?"),
        ("zoo_of_tests.nets:zzz", "'zoo_of_tests.nets' has no 'zzz'\n  -> check 'zoo_of_tests.nets:zzz'"),
        (
            "zoo_of_tests.nets:size",
            "'zoo_of_tests.nets:size' is a int, which is not callable\n"
            "  -> name a function without arguments (or a class) that returns the model",
        ),
        (
            "zoo_of_tests.nets:model",
            "'zoo_of_tests.nets:model' is a model (Linear), not a factory\n"
            "  -> name a function without arguments that returns it: def make(): return model",
        ),
        (
            "zoo_of_tests.nets:wide",
            "'zoo_of_tests.nets:wide' needs arguments: width\n  -> name a factory that is called without arguments",
        ),
        (
            "zoo_of_tests.nets:broken",
            "'zoo_of_tests.nets:broken' raised ValueError: no such width: 3 (nets.py:12)\n"
            "  -> make the factory work on its own first",
        ),
        (
            "zoo_of_tests.nets:leaves",
            "'zoo_of_tests.nets:leaves' raised SystemExit: bye (nets.py:15)\n"
            "  -> make the factory work on its own first",
        ),
        (
            "zoo_of_tests.nets:listed",
            "'zoo_of_tests.nets:listed' returned a list, not an nn.Module\n"
            "  -> name a function without arguments (or a class) that returns the model",
        ),
    ],
)
def test_refusals(spec: str, message: str, workshop: Path) -> None:
    with pytest.raises(InputError) as caught:
        load_model(spec)
    assert str(caught.value) == message.replace("HERE", str(workshop))


@pytest.mark.usefixtures("workshop")
def test_data_is_named_itself_or_what_returns_it() -> None:
    assert data_from("zoo_of_tests.nets:loader") == [1, 2]
    assert isinstance(data_from("zoo_of_tests.nets:listed")[0], nn.Linear)
    for name, kind in (("size", "int"), ("word", "str")):
        with pytest.raises(InputError, match=rf"is a {kind}, which is not callable\n  -> name a DataLoader, or"):
            data_from(f"zoo_of_tests.nets:{name}")


@pytest.mark.usefixtures("workshop")
def test_a_syntax_error_is_told() -> None:
    with pytest.raises(InputError, match=r"^importing 'zoo_of_tests.typo' raised SyntaxError: .*typo.py"):
        load_model("zoo_of_tests.typo:make")
