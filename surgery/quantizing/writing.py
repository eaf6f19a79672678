"""The quantiser of ONNX Runtime, with the settings that were measured to be worth it, and without its chatter."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from surgery.errors import InputError
from surgery.exporting.quiet import without_logs
from surgery.exporting.target import first_line
from surgery.quantizing.float_file import Feed

PROVENANCE = "surgery"
"""Key of the file's metadata that says what it is, as in `surgery.exporting.onnx`."""


def prepare(source: Path, folder: Path) -> Path:
    """A copy with shapes inferred and norms folded into convolutions: the quantiser fails on some graphs without.

    Symbolic shape inference is left out: it gains nothing here, does not understand every graph with free sizes, and
    leaves files in the current directory where it fails.
    """
    import onnx
    from onnxruntime.quantization.shape_inference import quant_pre_process

    whole, made = folder / "whole.onnx", folder / "prepared.onnx"
    try:
        onnx.save(onnx.load(str(source)), str(whole))  # weights in another file would be looked for in the wrong place
        with _quiet():
            quant_pre_process(str(whole), str(made), skip_symbolic_shape=True)
            _forget_shapes_of_weights(made)
    except Exception as error:
        fact = f"the model cannot be prepared for the quantiser: {first_line(error)}"
        raise InputError(fact, "export it with dynamic_shapes={}, and quantise that file") from error
    return made


def _forget_shapes_of_weights(path: Path) -> None:
    """Strike the shapes of weights that torch's exporter notes: where the quantiser turns a weight, they are wrong."""
    import onnx

    proto = onnx.load(str(path))
    weights = {tensor.name for tensor in proto.graph.initializer}
    kept = [value for value in proto.graph.value_info if value.name not in weights]
    del proto.graph.value_info[:]
    proto.graph.value_info.extend(kept)
    onnx.save(proto, str(path))


def write_static(prepared: Path, made: Path, feeds: Sequence[Feed]) -> None:
    """Weights int8 per channel, activations uint8 in the ranges that `feeds` show: QDQ nodes.

    Signed activations, the quantiser's own default, gain nothing on processors with VNNI.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # untyped
        """The feeds, one by one."""

        def __init__(self) -> None:
            self.left = iter(feeds)

        def get_next(self) -> dict[str, Any] | None:
            """The next one, or None at the end."""
            feed = next(self.left, None)
            return None if feed is None else dict(feed)

    with _explained():
        quantize_static(
            str(prepared),
            str(made),
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )


def write_dynamic(prepared: Path, made: Path) -> None:
    """Weights int8 per channel, activations in ranges that are found anew in every call; convolutions stay float.

    ONNX Runtime has no kernel for a dynamic convolution with signed weights.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.registry import IntegerOpsRegistry

    kinds = [kind for kind in IntegerOpsRegistry if kind != "Conv"]
    with _explained():
        quantize_dynamic(
            str(prepared), str(made), op_types_to_quantize=kinds, per_channel=True, weight_type=QuantType.QInt8
        )


def stamp(made: Path, float_path: Path, facts: Mapping[str, Any], final: Path) -> None:
    """Write `final`: the quantised file with `facts` beside what the float file says of itself, and no paths in it."""
    import onnx
    import onnx_ir
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass, RemoveUnusedOpsetsPass

    float_props = {p.key: p.value for p in onnx.load(str(float_path), load_external_data=False).metadata_props}
    model = onnx_ir.load(made)
    ClearMetadataAndDocStringPass()(model)
    RemoveUnusedOpsetsPass()(model)  # ONNX Runtime names every domain that it knows
    model.metadata_props.clear()
    model.metadata_props[PROVENANCE] = json.dumps(_said(float_props.get(PROVENANCE)) | dict(facts))
    onnx_ir.save(model, final)
    onnx.checker.check_model(str(final))


def _said(text: str | None) -> dict[str, Any]:
    """What the float file says of itself, if it is one of ours."""
    try:
        said = json.loads(text or "{}")
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


@contextmanager
def _explained() -> Iterator[None]:
    """The quantiser's failures as one sentence."""
    try:
        with _quiet():
            yield
    except Exception as error:
        fact = f"the quantiser of ONNX Runtime failed: {type(error).__name__}: {first_line(error)}"
        raise InputError(fact, "try the other method, or keep the float file") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Hold back what the quantiser writes to the root logger, which it would set up for the whole program."""
    holder = logging.NullHandler()
    logging.getLogger().addHandler(holder)
    try:
        with without_logs(("root", "onnxruntime")):
            yield
    finally:
        logging.getLogger().removeHandler(holder)
