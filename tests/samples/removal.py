"""A sample's program run on tensors, whole or without some of its channels."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from surgery.analysis.capture import Program
from surgery.coupling import Coupling, NormUse
from surgery.layout import Bools, Layout, covered, survivors
from surgery.registry import arguments, find_rule


class Run:
    """A program run on tensors, whole or without the channels that are not `alive`.

    Args:
        program, coupling: The sample's.
        values: The operands by name (parameters), the plain inputs under their placeholders' names.
        alive: The channels that stay.
        without: Run it on what stays; otherwise on everything, the contracted units that go set to `fill`.
        fill: The number that contracted units are set to.
    """

    def __init__(
        self,
        program: Program,
        coupling: Coupling,
        values: Mapping[str, Tensor],
        alive: Bools,
        *,
        without: bool,
        fill: float = 0.0,
    ) -> None:
        self.program, self.coupling, self.values, self.without = program, coupling, values, without
        self.fill = fill
        self.alive: Bools = alive[coupling.channel_of]
        self.env: dict[fx.Node, Any] = {}

    def outputs(self) -> list[Tensor]:
        """The program's tensors, in order."""
        plain = iter([self.values[name] for name in self.values if name not in self.program.tensors])
        for node in self.program.nodes:
            if node.op == "placeholder" and node.name in self.program.parameters:
                self.env[node] = self._parameter(self.program.parameters[node.name])
            elif node.op == "placeholder" and node.name in self.program.lifted:
                self.env[node] = self.program.lifted[node.name]
            elif node.op == "placeholder":
                self.env[node] = next(plain, torch.zeros(1))
            elif node.op == "call_function":
                self.env[node] = self._step(node)
            elif node.op == "output":
                return [self.env[n] for n in node.all_input_nodes if isinstance(self.env[n], Tensor)]
        raise AssertionError("a program without an output node")

    def _parameter(self, name: str) -> Tensor:
        tensor = self.values[name].clone()
        if not self.without:
            return tensor
        for use in self.coupling.norms:
            if use.site.gain == name:
                before, after = self._widths(use)
                wider = before / after if use.site.power == 1 else math.sqrt(before / after)
                tensor = (tensor + use.site.offset) * wider - use.site.offset
        axes = {dim: axis for (of, dim), axis in self.coupling.axes.items() if of == name}
        for dim, axis in axes.items():
            if axis.ids.ndim == 1:
                keep = torch.from_numpy(np.flatnonzero(self.alive[axis.ids]))
                if all(other.ids.ndim == 1 for other in axes.values()) or dim > 1:
                    tensor = tensor.index_select(dim, keep)
        grouped = axes.get(1)
        if grouped is not None and grouped.ids.ndim == 2:
            # rows of conv group g keep the columns whose channels in g stay
            rows = [
                np.array_split(np.arange(tensor.shape[0]), grouped.ids.shape[0])[g] for g in range(len(grouped.ids))
            ]
            outer = self.alive[axes[0].ids] if 0 in axes else np.ones(tensor.shape[0], bool)
            kept = [
                tensor[row][None, np.flatnonzero(self.alive[grouped.ids[g]])]
                for g in range(len(rows))
                for row in rows[g]
                if outer[row]
            ]
            tensor = torch.cat(kept)
        return tensor

    def _step(self, node: fx.Node) -> Any:
        bound = arguments(node.target, node.args, node.kwargs)
        if self.without:
            bound = self._resized(node, bound)
        named = fx.map_arg(bound, lambda n: self._read(node, n))
        if "hx" in named:  # zeros that the code makes are as wide as the layer
            hidden = named["params"][1].shape[1]
            named = {**named, "hx": fx.node.map_aggregate(named["hx"], lambda state: state[..., :hidden])}
        if node.target is operator.getitem:
            return named["input"][named["index"]]
        schema = node.target._schema.arguments  # type: ignore[union-attr]
        if any(a.name == "self" for a in schema):
            named = {("self" if key == "input" else key): value for key, value in named.items()}
        ordered = [named[a.name] for a in schema if not a.kwarg_only]
        return node.target(*ordered, **{a.name: named[a.name] for a in schema if a.kwarg_only})  # type: ignore[operator]

    def _read(self, node: fx.Node, operand: fx.Node) -> Any:
        """An operand; the contracted units that go are set to zero in a whole run."""
        value = self.env[operand]
        uses = [u for u in self.coupling.uses if (u.node, u.operand) == (node.name, operand.name)]
        own = [u for u in self.coupling.uses if (u.node, u.weight) == (node.name, operand.name) and u.part is not None]
        if self.without or not uses + own:
            return value
        value = value.clone()
        for use in uses:
            gone = torch.from_numpy(~self.alive[use.ids.ravel()])
            shape = [1] * value.dim()
            for dim in use.dims:
                shape[dim] = value.shape[dim]
            laid = gone.reshape([value.shape[d] for d in use.dims]).permute(np.argsort(use.dims).tolist())
            value = value.masked_fill(laid.reshape(shape), self.fill)
        for use in own:  # what an op makes and reads itself: nothing of it is read where the columns are zero
            value[:, torch.from_numpy(~self.alive[use.ids.ravel()])] = 0
        return value

    def _resized(self, node: fx.Node, bound: dict[str, Any]) -> dict[str, Any]:
        """The op's arguments, those that are sizes as the cut makes them."""
        rule = find_rule(node.target)
        sizes = rule.sizes if rule is not None else ()
        changed = {key: self._size(node, bound, key) for key in sizes if bound.get(key) is not None}
        for use in self.coupling.norms:
            if use.site.eps_node == node.name:
                changed[use.site.eps_argument] = use.site.value * self._widths(use)[0] / self._widths(use)[1]
        if bound.get("scale", 0) is None:  # attention is as steep as it was
            changed["scale"] = bound["query"].meta["val"].shape[-1] ** -0.5
        return bound | changed

    def _widths(self, use: NormUse) -> tuple[int, int]:
        """How many channels a norm averages over, before and after."""
        return use.ids.size, int(self.alive[use.ids].sum())

    def _size(self, node: fx.Node, bound: dict[str, Any], key: str) -> Any:
        new = self._shapes(node)
        if key == "repeats" and isinstance(bound[key], int):
            return self._copies(node, bound[key])
        (layout, *_) = self._layouts(node)
        if key in ("size", "shape") and "expand" in str(node.target):
            return [self._copies(node, s) if d in layout.stretched else s for d, s in enumerate(new[0])]
        if key == "size" and layout.stretched:
            return [self._copies(node, s, d) if d in layout.stretched else s for d, s in enumerate(new[0])]
        if key == "groups":
            uses = [u for u in self.coupling.uses if u.node == node.name]
            sides = [ids for u in uses for ids in (u.ids, u.rows) if ids is not None]
            return int(np.all([self.alive[ids].any(1) for ids in sides], axis=0).sum()) if sides else bound[key]
        if key in ("size", "shape", "sizes") and "unflatten" in str(node.target):
            dim = bound["dim"] % len(node.args[0].meta["val"].shape)  # type: ignore[union-attr]
            return list(new[0][dim : dim + len(bound[key])])
        if key in ("size", "shape") and "assert" not in str(node.target):
            return list(new[0])
        if key == "normalized_shape":
            return list(new[0][-len(bound[key]) :])
        if key == "length":
            return new[0][bound["dim"]]
        if key == "split_size" and isinstance(bound[key], int):
            return new[0][bound["dim"]]
        if key in ("split_size", "split_sizes"):
            return [shape[bound["dim"]] for shape in new]
        if key in ("start", "end") and bound.get("step", 1) == 1:
            return self._survivors_before(bound["input"], bound["dim"], bound[key])
        if key == "pad":
            return self._pad(node, bound)
        return bound[key]

    def _copies(self, node: fx.Node, times: int, dim: int | None = None) -> int:
        """How many copies of each unit an op makes, as it is found here or where they come to lie side by side."""
        following = [node]
        for one in following:  # grows
            following += one.users
        for made in self.coupling.copies:
            if made.node in {one.name for one in following} and dim in (None, made.dim):
                left = survivors(made.copies, self.alive)
                assert left is not None, "what is left is no rectangle"
                return left.shape[made.dim]
        return times

    def _layouts(self, node: fx.Node) -> tuple[Layout, ...]:
        value = self.coupling.layouts[node.name]
        return value if isinstance(value, tuple) else (value,)

    def _shapes(self, node: fx.Node) -> list[tuple[int, ...]]:
        return [shape_after(layout, self.alive) for layout in self._layouts(node)]

    def _survivors_before(self, operand: fx.Node, dim: int, bound: int) -> int:
        dim %= self._layouts(operand)[0].rank
        block = self._layouts(operand)[0].block_of(dim)
        if block is None:
            return bound
        rows = self.alive[block.reshape(math.prod(block.shape[:dim]), block.shape[dim], -1)].any(-1)
        flags = rows[rows.any(-1)][0]  # which columns stay may differ per row, how many may not
        return int(flags[: bound if bound >= 0 else bound + flags.size].sum())

    def _pad(self, node: fx.Node, bound: dict[str, Any]) -> list[int]:
        amounts, rank = list(bound["pad"]), self._layouts(node)[0].rank
        for i in range(len(amounts) // 2):
            block = self._layouts(node)[0].block_of(rank - 1 - i)
            if block is not None and len(covered(block)) == 1 and min(amounts[2 * i], amounts[2 * i + 1]) >= 0:
                flags = self.alive[block.ravel()]
                before, after = amounts[2 * i], amounts[2 * i + 1]
                amounts[2 * i], amounts[2 * i + 1] = int(flags[:before].sum()), int(flags[flags.size - after :].sum())
        return amounts


def shape_after(layout: Layout, alive: Bools) -> tuple[int, ...]:
    """A layout's shape when the ids that are not alive are gone."""
    shape = list(layout.shape)
    for block in layout.blocks:
        left = survivors(block, alive)
        assert left is not None, "what is left is no rectangle"
        for dim in covered(block):
            shape[dim] = left.shape[dim]
    return tuple(shape)


def dropped(tensor: Tensor, layout: Layout, alive: Bools) -> Tensor:
    """A tensor without the positions of the ids that are not alive."""
    assert tuple(tensor.shape) == layout.shape, f"the layout says {layout.shape}, the tensor is {tuple(tensor.shape)}"
    after = shape_after(layout, alive)
    for block in layout.blocks:
        dims = covered(block)
        rest = [d for d in range(layout.rank) if d not in dims]
        flat = tensor.permute(*dims, *rest)
        kept = flat[torch.from_numpy(alive[block].reshape([block.shape[d] for d in dims]))]
        flat = kept.reshape([after[d] for d in dims] + list(flat.shape[len(dims) :]))
        back = np.argsort([*dims, *rest])
        tensor = flat.permute(*back.tolist())
    return tensor


def output_layouts(program: Program, coupling: Coupling) -> Iterator[Layout]:
    """The layouts of the program's output tensors, in order."""
    output = next(node for node in program.nodes if node.op == "output")
    for node in output.all_input_nodes:
        value = coupling.layouts.get(node.name)
        if isinstance(value, Layout):
            yield value
