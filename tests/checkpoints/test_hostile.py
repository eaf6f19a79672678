"""Directories that somebody wrote on purpose, hashes included: refused with the reason, nothing executed."""

from __future__ import annotations

import io
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.checkpoints.tampering import AGAIN, NOT_OURS, Bomb, edit, header, refusal, rehash


def test_hostile_weights(slim: Path) -> None:
    weights, mark = slim / "model.safetensors", slim.parent / "mark"
    archive = io.BytesIO()
    torch.save({"head.bias": Bomb(mark)}, archive)
    huge = {"dtype": "F32", "shape": [2**40, 2**20], "data_offsets": [0, 16]}
    negative = {"dtype": "F32", "shape": [-4], "data_offsets": [0, 16]}
    beyond = {"dtype": "F32", "shape": [4], "data_offsets": [0, 2**60]}
    endless = (2**62).to_bytes(8, "little") + b"{}"
    contents = [pickle.dumps(Bomb(mark)), archive.getvalue(), endless]
    contents += [header(**{"head.bias": lie}) for lie in (huge, negative, beyond)]
    for content in contents:
        weights.write_bytes(content)
        rehash(slim)
        fact, way_out = refusal(slim)
        assert fact.startswith("'DIR/model.safetensors' cannot be read: ")
        assert way_out == AGAIN
    weights.write_bytes(header(**{"../../mark": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}))
    rehash(slim)
    assert "1 tensor not in the model: ../../mark" in refusal(slim)[0]
    assert not mark.exists()


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        (
            lambda d: d.update(ties=["a"]),
            r"'DIR/surgery.json' is damaged: Expected `object`, got `array` - at `\$.ties`",
        ),
        (lambda d: d.update(params_before="many"), r"'DIR/surgery.json' is damaged: Expected `int`, got `str`"),
        (lambda d: d.update(source=3), r"'DIR/surgery.json' is damaged: Expected `str \| null`, got `int`"),
        (
            lambda d: d.update(plan=7),
            "the plan in 'DIR/surgery.json' is damaged: this is not a plan: Expected `object`",
        ),
        (lambda d: d["plan"].update(axes=3), "the plan in 'DIR/surgery.json' is damaged: this is not a plan: Expected"),
        (lambda d: d["plan"]["axes"][0].update(keep=[99]), "the plan in .* is damaged: first.weight: position 99 of 8"),
        (
            lambda d: d["plan"]["axes"][0].update(keep=[2**70]),
            "the plan in 'DIR/surgery.json' is damaged: first.weight: position 1180591620717411303424 of 8",
        ),
        (lambda d: d["plan"].update(format_version=9), "the plan in .* is damaged: the plan has format 9"),
        (lambda d: d["plan"]["axes"][0].update(name="no.such"), "DIR does not fit the model|the plan in DIR cannot be"),
        (lambda d: d["plan"]["axes"][0].update(dim=9), "the plan in DIR cannot be carried out on Net: "),
        (lambda d: d["plan"]["folds"][0].update(bias="forward"), "the plan in DIR cannot be carried out on Net: "),
        (lambda d: d["plan"]["folds"][0].update(bias="grouped.__class__"), "the plan in DIR cannot be carried out"),
        (lambda d: d["plan"]["folds"][0].update(delta=[1.0]), "DIR does not fit|the plan in DIR cannot be"),
        (lambda d: d["plan"]["edits"][0].update(attribute="forward"), "DIR does not fit the model: .forward is "),
        (lambda d: d["plan"]["edits"][0].update(module="../x"), "DIR does not fit the model: the model has no ../x"),
        (lambda d: d["plan"]["edits"][0].update(index=5), "the plan in DIR cannot be carried out on Net: "),
        (
            lambda d: d.update(ties={"head.bias": "head.bias"}),
            "DIR ties 'head.bias' to 'head.bias', which does not fit",
        ),
        *(
            (
                lambda d, name=name: d["files"].update({name: "0" * 64}),
                f".*is damaged: the file name {re.escape(repr(name))} leads",
            )
            for name in ("../x", "/etc/passwd", "a/../../x", "..", "", "a\\b", "C:x", "a/b/c/d", "./x", "a//b", "x\0")
        ),
        (lambda d: d["files"].update({"source/config.json": "0" * 64}), "there is no file 'DIR/source/config.json'"),
        (lambda d: d.update(transformers="magic"), "'DIR/surgery.json' is damaged: Invalid enum value 'magic'"),
        (lambda d: d.update(anatomy={"": {"kind": 3}}), "'DIR/surgery.json' is damaged: Expected `str`, got `int`"),
        (lambda d: d.update(anatomy={}), "DIR is of another model: only the given model has a module ''"),
        (lambda d: d.update(ties={"x": "../model"}), "DIR ties 'x' to '../model', which does not fit its tensors"),
    ],
)
def test_a_hostile_manifest(slim: Path, change: Callable[[dict[str, Any]], Any], fact: str) -> None:
    edit(slim, change)
    assert re.match(fact, refusal(slim)[0])


def test_deep_nesting_where_anything_is_allowed(slim: Path) -> None:
    text = (slim / "surgery.json").read_text()
    deep = "[" * 200_000 + "]" * 200_000
    (slim / "surgery.json").write_text(re.sub(r'"proof":\{', f'"proof":{{"x":{deep},', text))
    fact, way_out = refusal(slim)
    assert fact.startswith("'DIR/surgery.json' is damaged: ")
    assert way_out == NOT_OURS
