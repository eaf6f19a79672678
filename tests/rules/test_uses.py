"""What a rule writes down about a contraction: which rows read which columns, and whether a constant meets a border.

With some inputs set to a constant c instead of 0, the output moves by `sum of W[:, those] · c`: evenly where the rule
says that there is no border (a fold into the bias is exact), and unevenly where it says that there is one.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from surgery.analysis.couple import couple
from surgery.coupling import Use
from surgery.layout import Bools, Layout
from tests.samples import convolution, dense, transposed
from tests.samples.removal import Run
from tests.samples.sample import Sample

CONSTANT = 0.5

CONTRACTING = (*convolution.SAMPLES, *dense.SAMPLES, *transposed.SAMPLES)


def moved(weight: Tensor, use: Use, gone: Bools) -> Tensor:
    """How far each output moves, `[conv_groups · outputs per group]`, added up group by group."""
    groups, inputs = use.ids.shape
    kernels = weight.reshape(*weight.shape[:2], -1).sum(-1)
    if use.orientation == "out_in":
        per_group = kernels.reshape(groups, -1, inputs)  # (g, o, i)
    else:
        per_group = kernels.reshape(groups, inputs, -1).transpose(1, 2)
    taken = torch.from_numpy(gone.reshape(groups, 1, inputs))
    return (per_group * taken * CONSTANT).sum(-1).reshape(-1)


@pytest.mark.parametrize("sample", CONTRACTING, ids=str)
def test_a_constant_moves_the_output_evenly_where_there_is_no_border(sample: Sample) -> None:
    coupling = couple(sample.program)
    rng = np.random.default_rng(0)
    alive = rng.random(coupling.n_channels) < 0.6
    runs = [Run(sample.program, coupling, sample.tensors, alive, without=False, fill=fill) for fill in (CONSTANT, 0.0)]
    for run in runs:
        run.outputs()
    for use in coupling.uses:
        if use.weight is None:
            continue
        node, weight = sample.program.by_name[use.node], sample.program.by_name[use.weight]
        if not torch.equal(runs[0].env[weight], runs[1].env[weight]):
            continue  # a weight that is itself a product of what was filled
        difference = (runs[0].env[node] - runs[1].env[node]).movedim(use.dims[0], 0)
        difference = difference.reshape(difference.shape[0], -1)
        expected = moved(runs[0].env[weight], use, ~alive[coupling.channel_of[use.ids]])
        even = bool(torch.isclose(difference, expected[:, None]).all())
        assert even != (use.borders and bool(expected.any()))
        layout = coupling.layouts[use.node]
        assert isinstance(layout, Layout)
        block = layout.block_of(use.dims[0])
        if use.rows is not None and block is not None:
            assert np.array_equal(coupling.channel_of[use.rows.ravel()], coupling.channel_of[block.ravel()])


def test_a_bias_that_takes_up_a_fold_has_one_entry_for_each_output() -> None:
    for sample in CONTRACTING:
        for use in couple(sample.program).uses:
            if use.bias is not None and use.weight is not None:
                bias = sample.program.by_name[use.bias].meta["val"]
                assert tuple(bias.shape) == (sample.program.by_name[use.node].meta["val"].shape[use.dims[0]],), (
                    sample.name
                )
