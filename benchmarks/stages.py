"""What is compared: our operation and torch-pruning's, each taken apart into stages on a stop watch.

Ours captures the masked net, couples its channels, finds from the weights which are dead and what constants they leave
behind, makes the plan, and cuts. The last stage, `recheck`, is no part of that: it captures the slim net again and
holds it against the plan, which torch-pruning has nothing like.

torch-pruning runs the net once to trace its graph, builds the groups, and in `step` scores every group by its norms and
removes the lower half of it. What the removed channels still added (biases, BatchNorm shifts) is lost there.
"""

from __future__ import annotations

import warnings
from dataclasses import replace

from torch import Tensor, nn

from benchmarks.full_size import classifier
from benchmarks.laps import Laps
from surgery.analysis.capture import capture
from surgery.analysis.couple import couple
from surgery.analysis.norms import norm_sites
from surgery.cutting.cut import cut_
from surgery.cutting.recheck import recheck
from surgery.cutting.repair import find_edits, uneven
from surgery.deciding.build import build
from surgery.deciding.dead import decide
from surgery.deciding.study import Study
from surgery.errors import CheckError
from surgery.inputs import Inputs
from surgery.plans import Plan

OURS = ("capture", "couple", "decide", "build", "cut")
"""Our stages, up to the slim net."""
CHECK = "recheck"
"""The stage after them, that only the check of the result needs."""
PEER = ("graph", "step")
"""torch-pruning's stages."""


def ours_(copy: nn.Module, masked: nn.Module, image: Tensor) -> tuple[Laps, int]:
    """Shrink `masked`, one stage after the other, and count its ops; the slim net is made of `copy`, a deep copy.

    Raises:
        CheckError: The first plan does not hold, so that `shrink` would plan again: this is not timed here.
    """
    inputs = Inputs.of(image)
    laps = Laps()
    program = capture(masked, inputs)
    laps.end("capture")
    coupling = couple(program, norm_sites(masked, program))
    laps.end("couple")
    study = Study(masked, inputs, program, coupling)
    decision = decide(study.case)  # `case` asks for the constants and the readings
    laps.end("decide")
    unequal = uneven(masked, program, coupling, decision.alive, set())
    edits = find_edits(masked, program, coupling, decision.alive, set())
    plan = replace(build(Plan, program, coupling, study.known, study.readings, decision), edits=edits)
    laps.end("build")
    cut_(copy, plan)
    laps.end("cut")
    mismatch = recheck(program, coupling, decision.alive, plan, copy, inputs)
    laps.end(CHECK)
    if unequal is not None or mismatch is not None:
        fact = unequal[1] if unequal is not None else mismatch.fact if mismatch is not None else ""
        raise CheckError(f"{type(masked).__name__} needs a second plan: {fact}", "time another net")
    return laps, len(program.calls)


def peer_(copy: nn.Module, image: Tensor) -> Laps:
    """Let torch-pruning remove half of every group of `copy`, in place."""
    import torch_pruning as tp

    importance, kept = tp.importance.MagnitudeImportance(p=2), [classifier(copy)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what it says about the net is not for our reader
        laps = Laps()
        pruner = tp.pruner.BasePruner(
            copy, image, importance=importance, pruning_ratio=0.5, global_pruning=False, ignored_layers=kept
        )
        laps.end("graph")
        pruner.step()
        laps.end("step")
    return laps
