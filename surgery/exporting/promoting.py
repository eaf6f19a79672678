"""Casts that PyTorch makes on its own, written into a captured program where `torch.onnx` does not find them."""

from __future__ import annotations

import torch

RSUB = torch.ops.aten.rsub.Scalar


def promote_(exported: torch.export.ExportedProgram) -> None:
    """Cast the whole numbers in `1.0 - mask` first: the translation of their dtype fails on a number minus a tensor."""
    graph = exported.graph
    for node in list(graph.nodes):
        if node.op != "call_function" or node.target is not RSUB:
            continue
        value, dtype = node.args[0].meta["val"], node.meta["val"].dtype
        if value.dtype != dtype:
            with graph.inserting_before(node):
                cast = graph.call_function(torch.ops.aten._to_copy.default, (node.args[0],), {"dtype": dtype})
            cast.meta["val"] = value.to(dtype)
            node.replace_input_with(node.args[0], cast)
    exported.graph_module.recompile()
