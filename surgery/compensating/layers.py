"""The layers that read what a plan removes, in the order in which they run, and the BatchNorms behind them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import fx

from surgery.analysis.capture import Program, users_of
from surgery.calls import short_name
from surgery.compensating.taps import ADDING, WEIGHT_OF
from surgery.coupling import Orientation
from surgery.deciding.build import sides_of
from surgery.deciding.bypasses import goes_whole
from surgery.deciding.cuts import Cuts
from surgery.deciding.reads import Reading
from surgery.deciding.study import Study
from surgery.layout import Bools, Ids


@dataclass(frozen=True)
class Layer:
    """One weight that reads channels.

    Attributes:
        name: Of the weight.
        dims: Which dim of it each dim of the op's weight is.
        orientation: `out_in` or `in_out`, of the op's weight.
        inputs: Which inputs stay, `[conv_groups, inputs per group]`.
        outputs: Which outputs stay, carriers apart, `[conv_groups, outputs per group]`.
        bias: The bias that belongs to it (it may have to be made), or None.
        calls: By how many ops it is read.
        joins: Whether what it answers is added, as it is, to something of the same shape that is known by then (a
            residual stream).
        place: Where it is, for people.
        refusal: Why its weight cannot be written to, or empty.
        no_bias: Why it has no bias to write to, where `bias` is None.
    """

    name: str
    dims: tuple[int, ...]
    orientation: Orientation
    inputs: Bools
    outputs: Bools
    bias: str | None
    calls: int
    joins: bool
    place: str
    refusal: str = ""
    no_bias: str = ""

    @property
    def rows(self) -> tuple[str, int]:
        """The weight, and the dim of it that hands the outputs out."""
        return self.name, self.dims[0 if self.orientation == "out_in" else 1]

    @property
    def groups(self) -> Ids:
        """The conv groups that stay."""
        found: Ids = np.flatnonzero(self.outputs.any(1) & self.inputs.any(1))
        return found

    @property
    def cut(self) -> bool:
        """Whether outputs that stay lose inputs."""
        return bool((~self.inputs & self.outputs.any(1, keepdims=True)).any())


@dataclass(frozen=True)
class Norm:
    """One BatchNorm with running statistics: their names, and which channels stay, carriers apart `[n]`."""

    mean: str
    var: str
    keep: Bools
    calls: int


def staying(study: Study, plan: Cuts) -> tuple[Bools, Bools]:
    """`(which channels the plan leaves, which of these are no carriers)`, each `[n_channels]`.

    A carrier is masked like what goes, and must go on sending the constant that the plan was made with.
    """
    coupling = study.coupling
    alive, free = np.ones((2, coupling.n_channels), bool)
    for cut in plan.axes:
        axis = coupling.axes.get((cut.name, cut.dim))
        if axis is not None and cut.removed and axis.ids.size == cut.size:
            gone = np.ones(cut.size, bool)
            gone[list(cut.keep)] = False
            alive[coupling.channel_of[axis.ids].ravel()[gone]] = False
    producers, _ = sides_of(study.program, coupling)
    for zeros in plan.zeros:
        if (zeros.name, zeros.dim) in producers:
            free[coupling.channel_of[coupling.axes[zeros.name, zeros.dim].ids].ravel()[list(zeros.positions)]] = False
    return alive, alive & free


def layers_of(study: Study, plan: Cuts) -> tuple[list[list[Layer]], list[str]]:
    """`(the layers that lose inputs, places that lose some and have no weight that could be written to)`.

    The layers come in stages: none of a stage rests on another of it, only on stages before.
    """
    program = study.program
    alive, free = staying(study, plan)
    readings: dict[str, list[Reading]] = {}
    others: dict[str, None] = {}
    for reading in (reading for reading in study.readings[::-1] if reading.use.weight is not None):
        source = program.source(str(reading.use.weight))
        if source is not None and goes_whole(plan.bypasses, source[0]):
            continue
        if source is not None and not reading.use.lead and short_name(_op(program, reading)) in WEIGHT_OF:
            readings.setdefault(source[0], []).append(reading)
        elif not alive[reading.channels].all():
            others[program.where(reading.use.node)] = None
    biases: dict[str, str] = {}
    layers = {name: _layer(study, name, several, (alive, free), biases) for name, several in readings.items()}
    nodes = {reading.use.node: name for name, layer in layers.items() if layer.cut for reading in readings[name]}
    depth = _depths(program, nodes)
    for node, name in nodes.items():
        beside = _beside(program.by_name[node])
        if beside is None or depth[beside] >= depth[program.by_name[node]]:
            layers[name] = replace(layers[name], joins=False)
    return [[layers[name] for name in stage] for stage in _stages(depth, nodes)], list(others)


def _op(program: Program, reading: Reading) -> Any:
    return program.by_name[reading.use.node].target


def _layer(
    study: Study, name: str, several: list[Reading], stays: tuple[Bools, Bools], biases: dict[str, str]
) -> Layer:
    """A weight with its uses."""
    alive, free = stays
    program, first = study.program, several[0]
    _, dims = program.source(str(first.use.weight)) or (name, ())
    inputs = alive[first.channels]
    if first.rows is not None:
        outputs = free[first.rows]
    else:
        out = program.tensors[name].shape[dims[first.use.weight_dims[0]]]
        outputs = np.ones((inputs.shape[0], out // (inputs.shape[0] if first.use.orientation == "out_in" else 1)), bool)
    kinds = {(program.source(str(r.use.weight)), r.use.orientation, alive[r.channels].tobytes()) for r in several}
    refusal = ""
    if len(_ends(program, name)) > len(several) or len(kinds) > 1:
        refusal = "it is read in other ways, too"
    bias, no_bias = first.slot, first.refusal
    if any(reading.slot != bias for reading in several):
        bias, no_bias = None, "its uses have different biases"
    elif bias is not None and (owner := biases.setdefault(bias, name)) != name:
        bias, no_bias = None, f"{bias} is {owner}'s, too"
    place = program.where(several[0].use.node)
    return Layer(name, dims, first.use.orientation, inputs, outputs, bias, len(several), True, place, refusal, no_bias)


def _beside(node: fx.Node) -> fx.Node | None:
    """What a value is added to, where nothing else comes of it: another value of its shape."""
    users = users_of(node)
    if len(users) != 1 or users[0].op != "call_function":
        return None
    if short_name(users[0].target) == "dropout":
        return _beside(users[0])
    sides = [side for side in users[0].args[:2] if isinstance(side, fx.Node) and side is not node]
    if short_name(users[0].target) not in ADDING or len(sides) != 1 or users[0].kwargs:
        return None
    return sides[0] if sides[0].meta["val"].shape == node.meta["val"].shape else None


def _ends(program: Program, name: str) -> list[fx.Node]:
    """The ops that read a tensor, transposed or as it is."""
    ends: list[fx.Node] = []
    reached = [node for node in program.nodes if program.parameters.get(node.name) == name]
    for node in reached:  # grows
        for user in users_of(node):
            moved = user.op == "call_function" and program.source(user.name) is not None
            (reached if moved else ends).append(user)
    return ends


def norms_of(study: Study, plan: Cuts) -> list[list[Norm]]:
    """Every BatchNorm with running statistics, in stages."""
    program, coupling = study.program, study.coupling
    _, free = staying(study, plan)
    found: dict[str, Norm] = {}
    nodes: dict[str, str] = {}
    for node in program.calls:
        if short_name(node.target) != "batch_norm":
            continue
        mean, var = (program.parameters.get(getattr(arg, "name", "")) for arg in node.args[3:5])
        if mean is None or var is None or program.tensors[mean].is_meta or goes_whole(plan.bypasses, mean):
            continue
        axis = coupling.axes.get((mean, 0))
        stays = np.ones(program.tensors[mean].shape, bool) if axis is None else free[coupling.channel_of[axis.ids]]
        before = found.get(mean)
        found[mean] = Norm(mean, var, stays, 1 if before is None else before.calls + 1)
        nodes[node.name] = mean
    return [[found[name] for name in stage] for stage in _stages(_depths(program, nodes), nodes)]


def _depths(program: Program, wanted: Collection[str]) -> dict[fx.Node, int]:
    """How many wanted nodes lie one behind the other on the way to each node, itself included."""
    depth: dict[fx.Node, int] = {}
    for node in program.nodes:
        behind = max((depth[other] for other in node.all_input_nodes), default=0)
        depth[node] = behind + (node.name in wanted)
    return depth


def _stages(depth: Mapping[fx.Node, int], wanted: Mapping[str, str]) -> list[list[str]]:
    """Names by nodes, sorted by the depth of their last node."""
    stage: dict[str, int] = {}
    for node, number in depth.items():
        if node.name in wanted:
            name = wanted[node.name]
            stage[name] = max(stage.get(name, 0), number)
    return [[name for name in stage if stage[name] == number] for number in sorted(set(stage.values()))]
