"""Every convolutional family, masked in three ways, shrunk, and judged without the package's own proof.

    python -m benchmarks.zoo                       # all of them, about a quarter of an hour on one core
    python -m benchmarks.zoo DLA "MobileNet v4"    # some, merged into the results

Exact means: in float64 to 1e-9 of the output's spread, in float32 to the masked net's own rounding, on fresh inputs of
two resolutions and two batch sizes. The slim net of the first preparation is exported to ONNX and TorchScript as well.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

import surgery
from benchmarks.families import BY_NAME, FAMILIES, Family
from benchmarks.preparations import PREPARATIONS, lively_
from surgery.errors import CheckError
from tests.exactness import Distance, assert_exact

RESULTS = Path(__file__).resolve().parent / "results" / "zoo.json"
EXPORTS = {"onnx": "slim.onnx", "torchscript": "slim.pt"}
FIRST = next(iter(PREPARATIONS))


@dataclass(frozen=True)
class Case:
    """One net, prepared in one way and shrunk.

    Attributes:
        masked: The net with zeros in it.
        result: What `shrink` made of it, unproven: nothing was put back.
        seconds: What `shrink` took.
        distance: From masked to slim, by `tests/exactness.py`.
    """

    masked: nn.Module
    result: surgery.Result
    seconds: float
    distance: Distance

    def facts(self) -> dict[str, Any]:
        """For the results."""
        result = self.result
        return {
            "params": [result.params_before, result.params_after],
            "macs": [result.macs_before, result.macs_after],
            "stranded": sum(group.stranded for group in result.plan.groups),
            "shrink_s": round(self.seconds, 2),
            **{f"{name}_error" if name.startswith("float") else name: v for name, v in asdict(self.distance).items()},
        }


def net_of(family: Family) -> nn.Module:
    """The family's net, lively, the same every time."""
    torch.manual_seed(0)
    return lively_(family.make(), family.example)


def shrunk(family: Family, masked: nn.Module) -> Case:
    """Shrink a masked net and judge the result.

    Raises:
        AssertionError: The slim net is not the masked one, or hardly depends on its input, so that nobody could tell.
    """
    began = time.perf_counter()
    result = surgery.shrink(masked, family.example, prove=False)
    seconds = time.perf_counter() - began
    found = assert_exact(masked, result.plan, result.model, family.example, shapes=family.shapes)
    return Case(masked, result, seconds, found)


def exported(family: Family, slim: nn.Module) -> dict[str, dict[str, Any]]:
    """Parity of the slim net in every format, or why the file was refused."""
    facts: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, file in EXPORTS.items():
            try:
                parity = surgery.export(slim, Path(folder) / file, family.example).parity
            except CheckError as error:
                facts[name] = {"refused": str(error).splitlines()[0]}
                continue
            facts[name] = {"error": parity.max_rel_error, "bound": parity.bound, "batches": list(parity.batch_sizes)}
    return facts


def examine(family: Family) -> dict[str, Any]:
    """Everything about one family.

    Raises:
        AssertionError: A slim net is not exact.
    """
    net = net_of(family)
    analysis = surgery.analyze(net, family.example)
    facts: dict[str, Any] = {
        "net": family.net,
        "stays": family.stays,
        "shape": list(family.shape),
        "removable_share": analysis.removable_share,
        "pinned": by_reason((pinned.reason, pinned.channels) for pinned in analysis.pinned),
        "unruled_ops": dict(analysis.unruled_ops),
        "preparations": {},
    }
    for name, prepare in PREPARATIONS.items():
        case = shrunk(family, prepare(copy.deepcopy(net), family.example))
        facts["preparations"][name] = case.facts()
        if name == FIRST:
            facts["exports"] = exported(family, case.result.model)
    return facts


def refused(exports: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """The formats that were refused."""
    return tuple(name for name, parity in exports.items() if "refused" in parity)


def by_reason(counts: Iterable[tuple[str, int]]) -> dict[str, int]:
    """How many channels are pinned for each reason, in all places together; the most frequent first."""
    total: Counter[str] = Counter()
    for reason, channels in counts:
        total[reason] += channels
    return dict(total.most_common())


def removed_share(facts: Mapping[str, Any], preparation: str) -> float:
    """The share of a family's parameters that went."""
    before, after = facts["preparations"][preparation]["params"]
    return 1 - float(after) / float(before)


def table(facts: Mapping[str, Any]) -> str:
    """The results as markdown: shares in percent of the parameters, the largest error of the preparations."""
    names = ", ".join(PREPARATIONS)
    lines = [
        f"| family | net | parameters | removable | removed: {names} | float64 error | ONNX, TorchScript | stays |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [_line(name, found) for name, found in facts["families"].items()]
    return "\n".join(lines)


def _line(name: str, found: Mapping[str, Any]) -> str:
    if "failed" in found:
        return f"| {name} | {found['net']} | | | | FAILED: {found['failed']} | | |"
    cases = found["preparations"]
    removed = ", ".join(f"{100 * removed_share(found, kind):.0f} %" for kind in cases)
    error = max(case["float64_error"] for case in cases.values())
    params = cases[FIRST]["params"][0] / 1e6
    share = 100 * found["removable_share"]
    agree = ", ".join(f"{kind} refused" for kind in refused(found["exports"])) or "agree"
    cells = [name, found["net"], f"{params:.1f} M", f"{share:.0f} %", removed, f"{error:.0e}", agree, found["stays"]]
    return f"| {' | '.join(cells)} |"


def results_of(families: Sequence[Family]) -> dict[str, Any]:
    """Examine families one after the other, with a line for each on stderr; a failure does not stop the others."""
    found: dict[str, Any] = {}
    for number, family in enumerate(families, 1):
        print(f"{number} of {len(families)}: {family.name} ({family.net})", file=sys.stderr, flush=True)
        began = time.perf_counter()
        try:
            found[family.name] = examine(family)
        except Exception as error:  # of any kind: it is the result
            traceback.print_exc()
            found[family.name] = {"net": family.net, "failed": f"{type(error).__name__}: {error}".splitlines()[0]}
        found[family.name]["seconds"] = round(time.perf_counter() - began, 1)
        print(f"  {found[family.name]['seconds']} s  {_line(family.name, found[family.name])}", file=sys.stderr)
    return found


def main() -> int:
    """Examine, keep, print; 1 where something failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="family", help="some of them, as in the table; all by default")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    if unknown := [name for name in options.names if name not in BY_NAME]:
        parser.error(f"no family {unknown[0]!r}; there are {', '.join(BY_NAME)}")
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)  # TorchScript, which is asked for
    found = results_of([BY_NAME[name] for name in options.names] or FAMILIES)
    known: dict[str, Any] = {}
    if options.names and options.output.is_file():
        known = json.loads(options.output.read_text())["families"]
    merged = {name: (known | found)[name] for name in BY_NAME if name in known | found}
    facts = {"torch": torch.__version__, "python": platform.python_version(), "families": merged}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(facts, indent=1) + "\n")
    print(table(facts))
    return int(any("failed" in result for result in found.values()))


if __name__ == "__main__":
    sys.exit(main())
