"""What every format promises."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

import surgery
from surgery.errors import CheckError, InputError
from surgery.exporting import Export, export
from tests.exporting.models import (
    BatchOfFour,
    Counter,
    LiveDropout,
    Nested,
    NoTensor,
    Scaled,
    Tokens,
    Undecided,
    convnet,
)
from tests.nets import lively, zero_

both = pytest.mark.parametrize("name", ["model.pt", "model.onnx"])
every = pytest.mark.parametrize("name", ["model.pt", "model.onnx", "model.pt2"])


@both
def test_a_model_in_train_mode_is_exported_as_in_eval_and_stays_as_it_was(name: str, tmp_path: Path) -> None:
    model = convnet().train()
    model[1].eval()  # one flag of its own
    flags = [module.training for module in model.modules()]
    state = {key: value.clone() for key, value in model.state_dict().items()}
    done = export(model, tmp_path / name, torch.randn(4, 3, 8, 8))
    assert done.parity.passed
    assert done.parity.max_rel_error <= done.parity.bound == 1e-5
    assert done.parity.batch_sizes == (1, 3, 4, 5)
    assert done.parity.n_inputs == 6
    assert [module.training for module in model.modules()] == flags
    torch.testing.assert_close(dict(model.state_dict()), state, rtol=0, atol=0)


@both
def test_the_result_reads_well_and_goes_into_json(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / name
    done = export(convnet(), path, torch.randn(2, 3, 8, 8))
    text = str(done)
    assert len(text.splitlines()) <= 2
    assert text.startswith(f"{path}: {done.format}")
    assert "agrees with the model: relative error " in text
    assert "on 6 inputs, batch 1, 2, 3, 5" in text
    back = json.loads(json.dumps(done.as_dict()))
    assert back["path"] == str(path)
    assert back["parity"]["batch_sizes"] == [1, 2, 3, 5]
    assert done.size_bytes == path.stat().st_size
    assert capsys.readouterr().out == ""
    assert [file.name for file in tmp_path.iterdir()] == [name]


@both
def test_an_example_of_batch_one_gives_a_free_batch(name: str, tmp_path: Path) -> None:
    done = export(convnet(), tmp_path / name, torch.randn(1, 3, 8, 8))
    assert done.parity.batch_sizes == (1, 3, 5)


@every
def test_keyword_inputs_and_a_dict_output(name: str, tmp_path: Path) -> None:
    inputs = {"scale": torch.randn(4, 1), "keep": torch.tensor([[1.0], [0.0], [1.0], [1.0]])}
    done = export(Scaled(), tmp_path / name, (torch.randn(4, 4),), inputs)
    assert done.parity.batch_sizes == (1, 3, 4, 5)


@every
def test_integer_inputs_and_a_dataclass_output(name: str, tmp_path: Path) -> None:
    done = export(Tokens(), tmp_path / name, torch.randint(0, 20, (2, 7)))
    assert done.parity.passed


@every
def test_nested_inputs_and_a_flag(name: str, tmp_path: Path) -> None:
    x = torch.randn(4, 8)
    done = export(Nested(), tmp_path / name, ([x, x + 1], {"k": x + 2}), {"flag": True})
    assert done.parity.max_rel_error <= 1e-6


@every
def test_a_batch_in_the_code_gives_a_file_for_that_batch_and_a_note(name: str, tmp_path: Path) -> None:
    done = export(BatchOfFour(), tmp_path / name, torch.randn(4, 8))
    assert done.parity.batch_sizes == (4,)
    expected = (
        "not compared on batch 1: BatchOfFour cannot"
        if done.format == "torchscript"
        else "the batch size is fixed at 4"
    )
    assert any(note.startswith(expected) for note in done.notes)


@every
def test_a_buffer_that_changes_in_forward(name: str, tmp_path: Path) -> None:
    model = Counter()
    done = export(model, tmp_path / name, torch.randn(4, 8))
    assert done.parity.max_rel_error <= 1e-6
    assert any("changes its buffer 'n' in forward" in note for note in done.notes)
    torch.testing.assert_close(model.n, torch.ones(1))


@every
def test_masks_with_their_hooks_in_place(name: str, tmp_path: Path) -> None:
    model = convnet()
    prune.ln_structured(model[0], "weight", 0.5, n=2, dim=0)
    done = export(model, tmp_path / name, torch.randn(2, 3, 8, 8))
    assert done.parity.passed
    assert prune.is_pruned(model)


@every
def test_inputs_without_a_shared_batch(name: str, tmp_path: Path) -> None:
    class Add(nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return x * 2 + y

    done = export(Add(), tmp_path / name, (torch.randn(4, 8), torch.randn(8)))
    assert done.parity.batch_sizes == ()
    assert done.parity.n_inputs == 3


@every
def test_the_file_holds_no_paths_of_this_machine(name: str, tmp_path: Path) -> None:
    export(convnet(), tmp_path / name, torch.randn(2, 3, 8, 8))
    raw = (tmp_path / name).read_bytes()
    members = [raw]
    if name.endswith(".pt2"):
        with zipfile.ZipFile(tmp_path / name) as archive:
            members += [archive.read(member) for member in archive.namelist()]
    for path in (Path(torch.__file__).parent, Path(__file__).parent, tmp_path):
        assert not any(str(path).encode() in member for member in members)


@every
def test_a_model_that_is_random_in_eval_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="answers the same input differently each time") as refusal:
        export(LiveDropout(), tmp_path / name, torch.randn(4, 8))
    assert "F.dropout without training=self.training" in refusal.value.way_out
    assert not list(tmp_path.iterdir())


@both
def test_a_model_without_tensor_outputs_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the model returns no tensor \(but a int\)"):
        export(NoTensor(), tmp_path / name, torch.randn(4, 8))


@both
def test_inputs_that_the_model_refuses(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"Sequential cannot run on the example inputs: .*channels") as refusal:
        export(convnet(), tmp_path / name, torch.randn(4, 2, 8, 8))
    assert refusal.value.__cause__ is not None
    assert not list(tmp_path.iterdir())


@both
def test_a_model_without_weights_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="on the meta device: it has no weights"):
        export(nn.Linear(2, 2, device="meta"), tmp_path / name, torch.randn(1, 2))


@pytest.mark.parametrize("name", ["a.pt", "a.pt2"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_judged_by_its_own_noise(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    done = export(convnet().to(dtype), tmp_path / name, torch.randn(4, 3, 8, 8).to(dtype))
    assert done.parity.bound > 1e-3


def test_half_precision_in_onnx(tmp_path: Path) -> None:
    done = export(convnet().half(), tmp_path / "a.onnx", torch.randn(4, 3, 8, 8).half())
    assert 1e-3 < done.parity.bound < 0.1


@pytest.mark.parametrize("name", ["model.pt2", *(pytest.param(n, marks=pytest.mark.slow) for n in ("a.pt", "a.onnx"))])
def test_a_captured_graph_that_was_cut(name: str, tmp_path: Path) -> None:
    class Mixing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.mix, self.down = (
                nn.Linear(8, 16),
                nn.MultiheadAttention(16, 4, batch_first=True),
                nn.Linear(16, 4),
            )

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.up(x)
            return self.down(torch.relu(self.mix(h, h, h, need_weights=False)[0]))

    net, x = lively(Mixing()), torch.randn(2, 5, 8)
    zero_(net.mix.out_proj.weight, range(4), dim=1)  # nobody reads the first head
    result = surgery.shrink(net, x)
    assert result.kind == "graph"
    done = export(result.model, tmp_path / name, x)
    assert done.parity.batch_sizes == (1, 2, 3, 5)


def test_bfloat16_is_refused_for_onnx(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"ONNX Runtime cannot load this model on the CPU: .*bfloat16") as refusal:
        export(convnet().bfloat16(), tmp_path / "a.onnx", torch.randn(4, 3, 8, 8).bfloat16())
    assert refusal.value.way_out == "export model.float() instead, if its dtype is the reason"
    assert str(tmp_path) not in refusal.value.fact
    assert not list(tmp_path.iterdir())


def test_the_branch_that_the_example_took_is_not_enough(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CheckError, match=r"disagrees with the model: relative error .* \(output 'output', on "):
        export(Undecided(), tmp_path / "a.pt", torch.randn(4, 8) + 0.05)
    with pytest.raises(InputError, match=r"torch.export cannot capture Undecided: .*data-dependent") as refusal:
        export(Undecided(), tmp_path / "a.onnx", torch.randn(4, 8))
    assert refusal.value.way_out == "change the model's forward there, or export to TorchScript"
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr() == ("", "")  # torch logs warnings and prints the unfinished graph


def test_results_are_frozen(tmp_path: Path) -> None:
    done = export(convnet(), tmp_path / "a.pt", torch.randn(2, 3, 8, 8))
    assert isinstance(done, Export)
    with pytest.raises(AttributeError):
        done.format = "other"  # type: ignore[misc]
