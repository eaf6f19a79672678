"""The float ONNX file that is to be quantised: opened, and refused where nothing good can come of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from surgery.checkpoints.directories import sha256
from surgery.errors import InputError
from surgery.exporting.target import first_line
from surgery.latency.onnx_runtime import session

if TYPE_CHECKING:
    import onnx

Array = NDArray[Any]
Feed = Mapping[str, Array]
"""One call of a file: its inputs by name."""

LARGEST_BYTES = 2_000_000_000
"""A protobuf message ends at 2 GiB, and the quantiser holds the model as one."""

LOWEST_OPSET = 13
"""The first whose QuantizeLinear knows channels."""

NARROW = ("FLOAT16", "BFLOAT16")

INTEGER_OPS = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "ConvInteger", "QLinear")
"""How the ops of a quantised file begin."""

DTYPES = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(int8)": np.int8,
    "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
}


@dataclass(frozen=True)
class Slot:
    """An input of a file: its name, its sizes (None where any goes) and its dtype."""

    name: str
    shape: tuple[int | None, ...]
    dtype: np.dtype[Any]

    def __str__(self) -> str:
        return f"[{', '.join('any' if size is None else str(size) for size in self.shape)}] {self.dtype}"


@dataclass(frozen=True)
class FloatFile:
    """An ONNX file of float32 weights.

    Attributes:
        path: Where it lies.
        slots: Its inputs, in order.
        output_names: Its outputs, in order.
        size_bytes: Of the file and of the weights beside it.
        sha256: Of the file itself.
    """

    path: Path
    slots: tuple[Slot, ...]
    output_names: tuple[str, ...]
    size_bytes: int
    sha256: str

    @staticmethod
    def open(path: Path) -> FloatFile:
        """Look into the file and load it once.

        Raises:
            InputError: It is missing, broken, above 2 GB, quantised already, of another precision, or too old.
        """
        import onnx

        if not path.is_file():
            raise InputError(f"there is no file {str(path)!r}", "give an nn.Module, or a float .onnx file")
        try:
            proto = onnx.load(str(path), load_external_data=False)
        except Exception as error:
            raise InputError(f"{str(path)!r} is not an ONNX file: {first_line(error)}", "export it again") from error
        size_bytes = path.stat().st_size + _external_bytes(proto)
        require_room(size_bytes)
        _refuse(proto, path)
        try:
            opened = session(path, 1)
        except InputError:
            raise
        except Exception as error:
            raise InputError(
                f"ONNX Runtime cannot load {str(path)!r}: {first_line(error)}", "export it again"
            ) from error
        slots = []
        for value in opened.get_inputs():
            if value.type not in DTYPES:
                raise InputError(f"its input {value.name!r} is a {value.type}", "export the model in float32")
            sizes = tuple(size if isinstance(size, int) else None for size in value.shape)
            slots.append(Slot(value.name, sizes, np.dtype(DTYPES[value.type])))
        names = tuple(value.name for value in opened.get_outputs())
        return FloatFile(path, tuple(slots), names, size_bytes, sha256(path))


def require_room(size_bytes: int) -> None:
    """Raise `InputError` for a model that is too large to be quantised."""
    if size_bytes > LARGEST_BYTES:
        raise InputError(
            f"the model takes {size_bytes / 1e9:.1f} GB, and the quantiser of ONNX Runtime ends at 2 GB",
            "quantise a smaller model, or parts of this one",
        )


def _refuse(proto: onnx.ModelProto, path: Path) -> None:
    """Raise `InputError` for a file that is quantised already, not float32, or of an old opset."""
    import onnx

    quantised = sum(node.op_type.startswith(INTEGER_OPS) for node in proto.graph.node)
    if quantised:
        raise InputError(
            f"{str(path)!r} is quantised already ({quantised} nodes of it work on integers)", "give the float file"
        )
    for tensor in proto.graph.initializer:
        kind = onnx.TensorProto.DataType.Name(tensor.data_type)
        if kind in NARROW and len(tensor.dims):
            raise InputError(f"the weight {tensor.name!r} is {kind}, not float32", "quantise model.float() instead")
    opset = max((one.version for one in proto.opset_import if one.domain in ("", "ai.onnx")), default=0)
    if opset < LOWEST_OPSET:
        raise InputError(
            f"{str(path)!r} is of opset {opset}; int8 weights per channel need {LOWEST_OPSET}",
            "export the model again, or convert the file with onnx.version_converter",
        )


def _external_bytes(proto: onnx.ModelProto) -> int:
    """What the tensors say of their size in other files."""
    from onnx.external_data_helper import uses_external_data

    held = (tensor for tensor in proto.graph.initializer if uses_external_data(tensor))
    return sum(int(entry.value) for tensor in held for entry in tensor.external_data if entry.key == "length")


def runner(path: Path) -> Callable[[Feed], list[Array]]:
    """A file as a function of its feed, on one thread.

    Raises:
        InputError: (the function) ONNX Runtime refuses the values, as a token that the vocabulary does not hold.
    """
    import onnxruntime

    opened = session(path, 1)
    silent = onnxruntime.RunOptions()
    silent.log_severity_level = 4  # what it has to say is in the exception

    def run(feed: Feed) -> list[Array]:
        try:
            outputs: list[Array] = opened.run(None, dict(feed), silent)
        except Exception as error:
            shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in feed.items())
            raise InputError(
                f"the model cannot run on the data ({shapes}): {first_line(error)}", "pass data that it accepts"
            ) from error
        return outputs

    return run


def rows(feed: Feed, slots: Sequence[Slot]) -> int | None:
    """The size that dim 0 of all inputs shares, where it is the free batch of the file; else None."""
    if not all(slot.shape and slot.shape[0] is None for slot in slots):
        return None
    sizes = {feed[slot.name].shape[0] for slot in slots}
    return sizes.pop() if len(sizes) == 1 else None
