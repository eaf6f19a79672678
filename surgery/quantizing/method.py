"""Static or dynamic: by where the multiply-accumulates of the model are."""

from __future__ import annotations

from collections import Counter
from math import prod
from pathlib import Path

from surgery.errors import InputError
from surgery.quantizing.float_file import Feed, runner

STATIC, DYNAMIC = "static", "dynamic"
METHODS = (STATIC, DYNAMIC)

CONVOLUTIONS = ("Conv", "ConvTranspose")
PRODUCTS = (*CONVOLUTIONS, "MatMul", "Gemm")


def require_known(method: str | None) -> None:
    """Raise `InputError` unless the method is one of ours, or left open."""
    if method is not None and method not in METHODS:
        raise InputError(f"there is no method {method!r}", f"choose one of {', '.join(METHODS)}, or leave it out")


def chosen(path: Path, feed: Feed, folder: Path) -> tuple[str, str]:
    """The method that suits a float file, and the reason: static where convolutions carry most of its MACs."""
    macs = count_macs(path, feed, folder)
    total = sum(macs.values())
    if not total:
        return DYNAMIC, "it has no convolutions"
    share = sum(macs[kind] for kind in CONVOLUTIONS) / total
    return (STATIC if share > 0.5 else DYNAMIC), f"convolutions carry {share:.0%} of the MACs"


def count_macs(path: Path, feed: Feed, folder: Path) -> Counter[str]:
    """Multiply-accumulates of one call by kind of op, from the shapes that the values really have.

    Args:
        path: A float file.
        feed: One call.
        folder: Where a copy may be written that hands out the values in between.
    """
    import onnx

    proto = onnx.load(str(path))
    nodes = [node for node in proto.graph.node if node.op_type in PRODUCTS]
    shapes = {tensor.name: tuple(tensor.dims) for tensor in proto.graph.initializer}
    shapes |= {name: value.shape for name, value in feed.items()}
    wanted = {name for node in nodes for name in (*node.input[:2], node.output[0])} - shapes.keys()
    handed = {value.name for value in proto.graph.output}
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in sorted(wanted - handed))
    seen = folder / "seen.onnx"
    onnx.save(proto, str(seen))
    outputs = runner(seen)(feed)
    shapes |= {value.name: array.shape for value, array in zip(proto.graph.output, outputs, strict=True)}
    macs: Counter[str] = Counter()
    for node in nodes:
        first, second, made = (shapes[name] for name in (*node.input[:2], node.output[0]))
        if node.op_type == "ConvTranspose":  # every input value meets [o / groups, kh, kw]
            macs[node.op_type] += prod(first) * prod(second[1:])
        elif node.op_type == "Conv":  # every output value has met [i / groups, kh, kw]
            macs[node.op_type] += prod(made) * prod(second[1:])
        else:
            turned = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
            macs[node.op_type] += prod(made) * (first[0] if turned else first[-1])
    return macs
