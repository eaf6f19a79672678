from __future__ import annotations

import subprocess
import sys
import threading
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from surgery.latency.protocol import environment
from surgery.latency.sending import receive, send

UNIMPORTABLE = """
from torch import nn
SCALE = 3.0
class Hidden(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 4)
    def forward(self, x):
        return self.inner(x) * SCALE
"""

CHILD = """
import sys, torch
from pathlib import Path
from surgery.latency.sending import receive
folder = Path(sys.argv[1])
for path in sorted(folder.glob("*.model")):
    model = receive(path)
    with torch.inference_mode():
        torch.save(model(torch.load(folder / "x.pt")), path.with_suffix(".out"))
"""


class Here(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


class Applied(nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.inner, self.function = nn.Linear(4, 4), function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.inner(x))


def masked() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 4))
    prune.ln_structured(model[0], "weight", 0.5, n=2, dim=0)
    prune.random_unstructured(model[2], "bias", 2)
    return model


def tied() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    return model


def local() -> nn.Module:
    class Local(Here):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) - 1

    return Local()


def hidden() -> nn.Module:
    module = types.ModuleType("a_module_without_a_file")
    sys.modules[module.__name__] = module
    exec(UNIMPORTABLE, module.__dict__)
    model: nn.Module = module.Hidden()
    return model


MODELS = {
    "of_a_test_file": Here,
    "with_a_lambda": lambda: Applied(lambda y: y * 2),
    "of_a_function": local,
    "of_no_file": hidden,
    "masked": masked,
    "parametrized": lambda: parametrizations.weight_norm(Here().inner),
    "spectral": lambda: parametrizations.spectral_norm(nn.Linear(4, 4)).eval(),
    "tied": tied,
    "traced": lambda: torch.fx.symbolic_trace(nn.Sequential(nn.Linear(4, 4), nn.ReLU())),
}


def test_every_kind_of_model_computes_the_same_in_another_process(tmp_path: Path) -> None:
    x, wanted = torch.randn(3, 4), {}
    torch.save(x, tmp_path / "x.pt")
    for name, make in MODELS.items():
        model = make()
        send(model, tmp_path / f"{name}.model")
        wanted[name] = model(x).detach()
    sys.modules.pop("a_module_without_a_file")
    subprocess.run([sys.executable, "-P", "-c", CHILD, str(tmp_path)], env=environment(1), check=True, timeout=120)
    got = {name: torch.load(tmp_path / f"{name}.out") for name in MODELS}
    torch.testing.assert_close(got, wanted, rtol=0, atol=0)


def test_the_mask_and_its_hooks_arrive(tmp_path: Path) -> None:
    model = masked()
    send(model, tmp_path / "m")
    got = receive(tmp_path / "m")
    assert prune.is_pruned(got)
    assert set(got.state_dict()) == set(model.state_dict())
    assert not model[0].weight.is_leaf  # the sender's own is as it was
    with torch.no_grad():
        got[0].weight_orig.mul_(2)
        got[0].bias.mul_(2)
        torch.testing.assert_close(got[0](torch.ones(1, 4)), 2 * model[0](torch.ones(1, 4)))  # the hook computes


def test_ties_arrive(tmp_path: Path) -> None:
    send(tied(), tmp_path / "m")
    got = receive(tmp_path / "m")
    assert got[0].weight is got[1].weight


def test_what_cannot_leave_the_process_says_so(tmp_path: Path) -> None:
    model = Here()
    model.lock = threading.Lock()
    with pytest.raises(TypeError, match=r"cannot pickle '_thread.lock' object"):
        send(model, tmp_path / "m")
