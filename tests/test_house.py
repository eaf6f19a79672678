"""The rules of the house, read off the files themselves: floors, names, docstrings, lengths, paths."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

FLOORS = (
    {
        "batches",
        "caches",
        "calls",
        "coupling",
        "errors",
        "inputs",
        "iterating",
        "known",
        "layout",
        "pieces",
        "progress",
        "tensors",
        "version",
    },  # words
    {"equations", "registry"},  # tools for rules
    {"rules"},
    {"analysis", "masks"},
    {"deciding"},
    {"cutting"},
    {"proof"},
    {
        "budgets",
        "checkpoints",
        "compensating",
        "depth",
        "distilling",
        "exporting",
        "judging",
        "latency",
        "plans",
        "quantizing",
        "reporting",
        "results",
        "sensitivities",
        "sources",
        "sparsities",
        "streaming",
        "targeting",
        "training",
        "uniform",
    },  # results, and out
    {
        "__init__",
        "__main__",
        "aligning",
        "analyses",
        "api",
        "callbacks",
        "choosing",
        "cli",
        "demo",
        "fitting",
        "gains",
        "pruning",
        "recovering",
        "schedules",
        "sensing",
        "shrinking",
        "verifying",
    },  # doors
)
"""The top-level modules of the package, from the lowest floor up: lower ones never import higher ones."""

FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}

LONGEST = 400
BAD_NAMES = {"utils", "util", "helpers", "helper", "common", "misc"}

NO_COUNTERPART = {
    "tests/test_house.py": "reads the files, not the package",
    "tests/test_readme.py": "runs the examples of README.md",
    "tests/test_benchmarks.py": "the scripts under benchmarks/, at tiny size",
    "tests/test_random_nets.py": "random nets, end to end",
    "tests/test_random_chains.py": "chains of layers with a closed form, end to end",
    "tests/test_found_faults.py": "faults that random nets found, one a test",
    "tests/test_commuting.py": "every op of tests/samples",
    "tests/test_snapshots.py": "printed analyses of tiny nets",
    "tests/test_attention.py": "attention as people write it, end to end",
    "tests/test_attention_kinds.py": "kinds of attention, end to end",
    "tests/test_norm_width.py": "residual streams under norms, end to end",
    "tests/test_norm_response.py": "global response norm, end to end",
    "tests/test_fused_heads.py": "heads that the code takes by number, end to end",
    "tests/test_recurrent.py": "recurrent layers, end to end",
    "tests/test_fallback.py": "models that come back as captured graphs, end to end",
    "tests/test_minilm.py": "a trained transformer, end to end",
    "tests/test_field_attention.py": "attention of published nets, end to end",
    "tests/test_field_transformers.py": "models of transformers, end to end",
    "tests/test_field_coats.py": "masks as they come, end to end",
    "tests/test_field_contracts.py": "what users ask for, end to end",
    "tests/test_field_maskers.py": "masks as other packages make them, end to end",
    "tests/test_field_models.py": "shapes of models, end to end",
    "tests/test_field_patterns.py": "patterns of published nets, end to end",
    "tests/test_field_peers.py": "where other tools are wrong, end to end",
    "tests/test_zoo.py": "every family of benchmarks/families.py, end to end",
    "tests/test_aligning_rectangles.py": "the other half of tests/test_aligning.py",
    "tests/test_traps.py": "counterexamples, end to end",
    "tests/test_traps_of_structure.py": "counterexamples, end to end",
}
"""Test files that mirror no module of the package, each with the reason."""

MACHINE_PATH = re.compile(r"(?<![\w./:-])/(?:wor" + r"k|tm" + r"p|roo" + r"t|hom" + r"e|User" + r"s)/\w")


def sources(root: Path, folder: str) -> list[Path]:
    return sorted(path for path in (root / folder).rglob("*.py") if "__pycache__" not in path.parts)


def top(path: Path, root: Path) -> str:
    """The top-level module that a file belongs to: `rules` for surgery/rules/conv.py."""
    parts = path.relative_to(root / "surgery").parts
    return parts[0].removesuffix(".py")


def imported(path: Path, root: Path) -> Iterator[tuple[int, str]]:
    """Line and top-level module of every import from the package, wherever it stands in the file."""
    package = ("surgery", *path.relative_to(root / "surgery").parent.parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                parts = alias.name.split(".")
                if parts[0] == "surgery":
                    yield node.lineno, parts[1] if len(parts) > 1 else "__init__"
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            parts = [*above, *(node.module or "").split(".")] if node.module else list(above)
            if parts[:1] != ["surgery"]:
                continue
            if len(parts) > 1:
                yield node.lineno, parts[1]
            else:
                yield from ((node.lineno, a.name if a.name in FLOOR else "__init__") for a in node.names)


def floor_faults(root: Path) -> list[str]:
    faults = []
    for path in sources(root, "surgery"):
        here = top(path, root)
        if here not in FLOOR:
            faults.append(f"{here} has no floor")
            continue
        for line, there in imported(path, root):
            if FLOOR.get(there, -1) > FLOOR[here]:
                where = path.relative_to(root)
                faults.append(f"{where}:{line} imports {there} (floor {FLOOR[there]}) from floor {FLOOR[here]}")
    return faults


def size_and_name_faults(root: Path) -> list[str]:
    faults = []
    for path in [*sources(root, "surgery"), *sources(root, "tests"), *sources(root, "benchmarks")]:
        where = path.relative_to(root)
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > LONGEST:
            faults.append(f"{where} has {lines} lines: a second idea has moved in")
        if BAD_NAMES & {part.removesuffix(".py") for part in where.parts}:
            faults.append(f"{where} is named after nothing")
    return faults


def docstring_faults(root: Path) -> list[str]:
    faults = []
    for path in sources(root, "surgery"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        where = path.relative_to(root)
        if tree.body and not ast.get_docstring(tree):
            faults.append(f"{where} has no docstring")
        faults += [
            f"{where}:{node.lineno} {node.name} has no docstring"
            for node in tree.body
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name[0] != "_" and not ast.get_docstring(node)
        ]
    return faults


def mirror_faults(root: Path) -> list[str]:
    """A test at the top mirrors a module or a package; one in a folder is about the package of that name."""
    faults = []
    for path in sources(root, "tests"):
        where = path.relative_to(root)
        if not path.name.startswith("test_") or where.as_posix() in NO_COUNTERPART:
            continue
        folders = where.parent.parts[1:]
        base = root / "surgery" / path.stem.removeprefix("test_")
        mirrored = [root.joinpath(*folders), root.joinpath("surgery", *folders)] if folders else [base]
        if not any(other.is_dir() for other in mirrored) and not (not folders and base.with_suffix(".py").is_file()):
            faults.append(f"{where} has no counterpart {mirrored[-1].relative_to(root)}")
    return faults


def tracked(root: Path) -> list[Path]:
    """What git tracks or would track; every text file where there is no git."""
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        run = subprocess.run(listing, cwd=root, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return [*sources(root, "surgery"), *sources(root, "tests"), *sources(root, "benchmarks"), *root.glob("*.*")]
    return [root / name for name in run.stdout.split("\0") if name]


def path_faults(root: Path) -> list[str]:
    faults = []
    for path in tracked(root):
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            continue
        faults += [
            f"{path.relative_to(root)}:{n} {line}" for n, line in enumerate(lines, 1) if MACHINE_PATH.search(line)
        ]
    return faults


CHECKS = (floor_faults, size_and_name_faults, docstring_faults, mirror_faults, path_faults)


@pytest.mark.parametrize("check", CHECKS)
def test_the_house_is_in_order(check: object) -> None:
    assert callable(check)
    assert check(ROOT) == []


def test_every_public_name_of_the_package_is_documented() -> None:
    package = importlib.import_module("surgery")
    for name in getattr(package, "__all__", ()):
        value = getattr(package, name)
        if inspect.isfunction(value) or inspect.isclass(value):
            assert inspect.getdoc(value), f"surgery.{name} has no docstring"


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("surgery/errors.py", "from surgery.rules.conv import rule"),
        ("surgery/errors.py", "import surgery.cli"),
        ("surgery/errors.py", "import surgery"),
        ("surgery/errors.py", "from surgery import analyze"),
        ("surgery/rules/conv.py", "from surgery import cutting"),
        ("surgery/rules/conv.py", "from ..cutting import gather"),
        ("surgery/rules/conv.py", "from .. import cutting"),
        ("surgery/rules/conv.py", "def f():\n    from surgery.cutting.gather import gather"),
        ("surgery/other.py", ""),
    ],
)
def test_a_wrong_import_is_found(tmp_path: Path, name: str, line: str) -> None:
    for fine in ("cutting/gather.py", "rules/pool.py", "cutting/fold.py"):
        write(tmp_path, f"surgery/{fine}", "from surgery import errors\nfrom . import pool\nimport torch\n")
    assert floor_faults(tmp_path) == []
    write(tmp_path, name, line)
    assert len(floor_faults(tmp_path)) == 1


def test_other_faults_are_found(tmp_path: Path) -> None:
    write(tmp_path, "surgery/fine.py", '"""Fine."""\n\n\ndef _private(): ...\n')
    write(tmp_path, "tests/test_fine.py", '"""See https://example.org/work/x, ./work/x and a/tmp/b."""\n')
    for check in CHECKS[1:]:
        assert check(tmp_path) == []
    write(tmp_path, "surgery/long.py", '"""Long."""\n' + "x = 1\n" * LONGEST)
    write(tmp_path, "surgery/rules/utils.py", "def f(): ...\n\n\nclass C: ...\n")
    write(tmp_path, "tests/test_none.py", "OUT = '" + "/tm" + "p/out'\n")
    write(tmp_path, "tests/nowhere/test_fine.py", "")
    assert len(size_and_name_faults(tmp_path)) == 2
    assert len(docstring_faults(tmp_path)) == 3
    assert len(mirror_faults(tmp_path)) == 2
    assert len(path_faults(tmp_path)) == 1
