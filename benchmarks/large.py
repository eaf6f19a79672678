"""Full-size transformers: how long the coupling takes, and everything up to the slim net, beside torch-pruning.

    python -m benchmarks.large                     # 10 minutes; writes benchmarks/results/large.json
    python -m benchmarks.large bert --rounds 1 --output quick.json

Half of the heads (of the query heads of every key head, where those are shared) and half of the inner neurons are
masked, by columns of what reads them. Every figure is of a fresh process on one thread; the sides take turns. Ours is
`surgery.shrink(inplace=True, prove=False)`. What torch-pruning does, too, is `up to the cut`: capture, coupling, what
is to go, and cutting it. In all, every op of the slim net is checked, all weights are read for NaN and subnormals, and
multiply-accumulates are counted. torch-pruning is told which of the outputs to follow, nothing else. Memory is the peak
of the resident set above the loaded net, over the size of its weights.
"""

from __future__ import annotations

import argparse
import json
import pkgutil
import statistics
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import nn

import benchmarks.torchvision_cpu  # noqa: F401  # before torchvision is imported
from benchmarks import processes
from benchmarks.memory import peak_bytes, reset_peak
from surgery.latency.machine import load_average, this_machine

RESULTS = Path(__file__).parent / "results" / "large.json"
LIMIT_S = 60
TOKENS = 128

LLAMA: dict[str, Any] = {"hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 22, "vocab_size": 32000}


def _vit() -> nn.Module:
    import timm

    made: nn.Module = timm.create_model("vit_base_patch16_224")
    return made


def _swin() -> nn.Module:
    from torchvision.models import swin_t

    made: nn.Module = swin_t(weights=None)
    return made


def _bert() -> nn.Module:
    from transformers import BertConfig, BertModel

    return BertModel(BertConfig())


def _llama() -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(**LLAMA, num_attention_heads=32, num_key_value_heads=16))


NETS = {
    "ViT-B/16": (_vit, "attn.proj", "mlp.fc2", 12),
    "BERT-base": (_bert, "attention.output.dense", "output.dense", 12),
    "Swin-T": (_swin, "", "mlp.3", 0),
    "Llama, 1.2 B, 2 query heads to a key head": (_llama, "o_proj", "down_proj", 32),
}
"""How each is made; whose columns read its heads, and its neurons; how many heads."""


def masked(name: str) -> tuple[nn.Module, tuple[Any, ...], dict[str, Any]]:
    """The net, masked, and what it is called with."""
    make, heads, neurons, count = NETS[name]
    torch.manual_seed(0)
    net = make().eval()
    with torch.no_grad():
        for path, module in net.named_modules():
            if not isinstance(module, nn.Linear):
                continue
            if heads and path.endswith(heads):
                module.weight.view(module.out_features, count, -1)[:, ::2] = 0
            elif path.endswith(neurons):
                module.weight[:, ::2] = 0
    if name in ("ViT-B/16", "Swin-T"):
        return net, (torch.randn(1, 3, 224, 224),), {}
    return net, (), {"input_ids": torch.randint(0, 30000, (1, TOKENS))}


COUPLING, CHECKS = "surgery.deciding.study.couple", "surgery.cutting.operate._check"
CUTTING = ("surgery.shrinking.Study.of", "surgery.shrinking.operate_anyhow", "surgery.shrinking._cut_in_place")


def ours(name: str) -> Iterator[dict[str, Any]]:
    """Our side, once."""
    import surgery

    torch.set_num_threads(1)
    net, args, kwargs = masked(name)
    before = reset_peak()
    with ExitStack() as stack:
        coupling, checks, *cutting = (stack.enter_context(timed(name)) for name in (COUPLING, CHECKS, *CUTTING))
        began = time.perf_counter()
        result = surgery.shrink(net, args, kwargs, inplace=True, prove=False)
        seconds = time.perf_counter() - began
    yield {
        "coupling_ms": 1e3 * coupling[0],
        "shrink_s": seconds,
        "up_to_cut_s": sum(map(sum, cutting)) - sum(checks),
        "memory": (peak_bytes() - before) / (4 * result.params_before),
        "params": [result.params_before, result.params_after],
    }


@contextmanager
def timed(name: str) -> Iterator[list[float]]:
    """Inside, the seconds of every call of a function of the package."""
    seconds: list[float] = []
    plain = pkgutil.resolve_name(name)

    def measured(*args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter()
        try:
            return plain(*args, **kwargs)
        finally:
            seconds.append(time.perf_counter() - began)

    with mock.patch(name, measured):
        yield seconds


def peer(name: str) -> Iterator[dict[str, Any]]:
    """torch-pruning, once."""
    import torch_pruning as tp

    torch.set_num_threads(1)
    net, args, kwargs = masked(name)
    kept = [module for module in net.modules() if isinstance(module, nn.Linear)][-1:]
    began = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importance = tp.importance.MagnitudeImportance(p=2)
        tp.pruner.MagnitudePruner(
            net, kwargs or args[0], importance, pruning_ratio=0.5, ignored_layers=kept, output_transform=_followed
        ).step()
    yield {"peer_s": time.perf_counter() - began}


def _followed(output: Any) -> Any:
    """The first tensor of an output."""
    return output if isinstance(output, torch.Tensor) else output[0]


def main() -> None:
    """Measure, print, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nets", nargs="*", help="parts of their names; all by default")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=RESULTS)
    given = parser.parse_args()
    names = [n for n in NETS if not given.nets or any(part.lower() in n.lower() for part in given.nets)]
    facts: dict[str, Any] = {"machine": str(this_machine()), "load": load_average(), "nets": {n: [] for n in names}}
    for turn in range(given.rounds):
        for name in names:
            both: dict[str, Any] = {}
            for work in (ours, peer) if turn % 2 == 0 else (peer, ours):
                (found,) = processes.finished(work, [name], jobs=1, limit_s=LIMIT_S)
                both |= {f"{work.__name__}_failed" if key == "failed" else key: v for key, v in found[1].items()}
            facts["nets"][name].append(both)
            given.output.write_text(json.dumps(facts, indent=1) + "\n")
    print(table(facts))


def _median(runs: list[dict[str, Any]], key: str) -> float | None:
    found = [run[key] for run in runs if key in run]
    return statistics.median(found) if found else None


def table(facts: dict[str, Any]) -> str:
    """The results as markdown."""
    lines = [
        "| net | coupling | up to the cut | in all | torch-pruning | memory above the net, in place |",
        "|---|---|---|---|---|---|",
    ]
    for name, runs in facts["nets"].items():
        theirs = _median(runs, "peer_s")
        failed = next((run["peer_failed"] for run in runs if "peer_failed" in run), "")
        cells = [
            name,
            f"{_median(runs, 'coupling_ms'):.0f} ms",
            f"{_median(runs, 'up_to_cut_s'):.1f} s",
            f"{_median(runs, 'shrink_s'):.1f} s",
            f"{theirs:.1f} s" if theirs is not None else f"fails: {failed.partition(':')[0]}",
            f"{_median(runs, 'memory'):.2f} of its weights",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    machine = facts["machine"].split(", torch")[0]
    return "\n".join([*lines, "", f"Medians of fresh processes, one thread; {machine}."])


if __name__ == "__main__":
    main()
