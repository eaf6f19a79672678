"""Two processes on one CPU (gloo), started by the frameworks' own launchers."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).resolve().parent


def run(*words: str) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *words], env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("lightning"), reason="the extra lightning")
@pytest.mark.parametrize("kind", ["gradual cuts", "gradual masks"])
def test_lightning_on_two_processes_is_lightning_on_one(tmp_path: Path, kind: str) -> None:
    """The same samples a step, float64: masks and cuts are the same, and so are the weights. DDP is wrapped again."""
    for processes in ("1", "2"):
        run(str(HERE / "lightning_run.py"), kind, processes, str(tmp_path / processes))
    one, two = (torch.load(tmp_path / name, weights_only=True) for name in ("1", "2"))
    assert one["params"] == two["params"]
    torch.testing.assert_close(two["net"], one["net"], rtol=0, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "fits"), [("gradual masks", True), ("gradual cuts", False)])
def test_a_trainer_of_transformers_on_two_processes(tmp_path: Path, kind: str, fits: bool) -> None:
    """Masks are alike on both; a cut is refused by both, for the Trainer holds its DDP for the whole run."""
    launcher = ("-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=0", "--standalone")
    run(*launcher, str(HERE / "trainer_run.py"), kind, str(tmp_path))
    if fits:
        one, two = (torch.load(tmp_path / f"net-{rank}.pt", weights_only=True) for rank in (0, 1))
        torch.testing.assert_close(two, one, rtol=0, atol=0)
        assert sum(int((mask == 0).sum()) for name, mask in one.items() if name.endswith("_mask")) > 1000
        return
    for rank in (0, 1):
        told = (tmp_path / f"refused-{rank}").read_text()
        assert "keeps its wrap around the model" in told
        assert "cut=False" in told
