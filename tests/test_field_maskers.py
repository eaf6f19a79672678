"""What the field's maskers leave behind, made by themselves: Lightning's ModelPruning, Catalyst's prune_model."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.utils import prune
from torch.utils.data import DataLoader, TensorDataset

import surgery
from surgery.cli import main
from surgery.errors import InputError
from surgery.masks import find_coats
from surgery.sources.weights import load_checkpoint_
from tests import nets
from tests.exactness import shrunk
from tests.maskers_nets import IMAGE, make_net

pytestmark = [
    pytest.mark.slow,
    # of the packages themselves; their own code causes each
    pytest.mark.filterwarnings("ignore:.*`isinstance\\(treespec, LeafSpec\\)` is deprecated.*"),
]
needs_lightning = pytest.mark.skipif(not importlib.util.find_spec("lightning"), reason="the extra lightning")
needs_catalyst = pytest.mark.skipif(not importlib.util.find_spec("catalyst"), reason="catalyst is not installed")


def batches() -> DataLoader[Any]:
    generator = torch.Generator().manual_seed(1)
    data = TensorDataset(torch.randn(32, 3, 9, 9, generator=generator), torch.arange(32) % 5)
    return DataLoader(data, batch_size=16)


def make_module(**hyper: Any) -> Any:
    """A LightningModule around the net, as people write it."""
    import lightning.pytorch as pl

    class Classifier(pl.LightningModule):
        def __init__(self, lr: float = 1e-2, **more: Any) -> None:
            super().__init__()
            self.save_hyperparameters()
            self.net = make_net()
            self.loss = nn.CrossEntropyLoss(weight=torch.ones(5))

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x)

        def training_step(self, batch: Any, index: int) -> Tensor:
            loss: Tensor = self.loss(self(batch[0]), batch[1])
            self.log("loss", loss)
            return loss

        def validation_step(self, batch: Any, index: int) -> None:
            self.log("seen", float(len(batch[0])), batch_size=16)

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), self.hparams["lr"])

    return Classifier(**hyper)


def trained(place: Path, module: Any, *, epochs: int = 2, **settings: Any) -> Any:
    """The trainer after `fit` with ModelPruning; its last checkpoint lies in `place`."""
    import lightning.pytorch as pl
    from lightning.pytorch.callbacks import ModelCheckpoint, ModelPruning

    with quiet():
        trainer = pl.Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[ModelPruning(**settings), ModelCheckpoint(place, "last")],
        )
        loader = batches()
        trainer.fit(module, loader, loader)
    return trainer


@contextmanager
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        # Lightning's advice about worker processes and log intervals
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        warnings.filterwarnings("ignore", ".*The number of training batches.*is smaller than the logging interval.*")
        yield


def convolutions(net: nn.Module) -> list[tuple[nn.Module, str]]:
    return [(layer, "weight") for layer in net.modules() if isinstance(layer, nn.Conv2d)]


ROWS = {"pruning_fn": "ln_structured", "pruning_norm": 2, "pruning_dim": 0}
COLUMNS = {"pruning_fn": "ln_structured", "pruning_norm": 1, "pruning_dim": 1}
KINDS: dict[str, dict[str, Any]] = {
    "l1 global": {"pruning_fn": "l1_unstructured", "use_global_unstructured": True, "amount": 0.6},
    "random global": {"pruning_fn": "random_unstructured", "use_global_unstructured": True, "amount": 0.6},
    "l1 local": {"pruning_fn": "l1_unstructured", "use_global_unstructured": False, "amount": 0.6},
    "random local": {"pruning_fn": "random_unstructured", "use_global_unstructured": False, "amount": 0.6},
    "rows": {**ROWS, "use_global_unstructured": False, "amount": 0.5},
    "columns": {**COLUMNS, "use_global_unstructured": False, "amount": 0.5},
    "random rows": {
        "pruning_fn": "random_structured",
        "pruning_dim": 0,
        "use_global_unstructured": False,
        "amount": 0.5,
    },
}

STRUCTURED = {"rows", "columns", "random rows"}


@needs_lightning
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("permanent", [True, False])
@pytest.mark.parametrize("ticket", [True, False])
def test_model_pruning_shrinks_exactly(tmp_path: Path, kind: str, permanent: bool, ticket: bool) -> None:
    module, settings = make_module(), dict(KINDS[kind])
    if kind in STRUCTURED:
        settings["parameters_to_prune"] = convolutions(module.net)
    trained(
        tmp_path,
        module,
        make_pruning_permanent=permanent,
        use_lottery_ticket_hypothesis=ticket,
        prune_on_train_epoch_end=ticket,
        **settings,
    )
    assert bool(find_coats(module)) != permanent
    for model in (module.net, module):
        result = surgery.shrink(model, IMAGE)
        assert result.proof is not None
        assert result.proof.passed
        shrunk(model, IMAGE, healthy=1e-3)
        if kind not in STRUCTURED:
            assert find_coats(model).names or result.notes  # scattered zeros are told of
            assert surgery.sparsity(model).share > 0.7
            continue
        assert result.params_after < result.params_before
        if kind in {"rows", "random rows"}:
            slim = result.model if model is module.net else result.model.net
            assert slim[0].out_channels <= 5  # 4 of 16 are left of two rounds, and one may carry constants
            assert slim[3].out_channels == 4


@needs_lightning
def test_amounts_by_epoch_and_nothing_named(tmp_path: Path) -> None:
    """`amount` and `apply_pruning` are functions of the epoch; every weight and bias is masked, gains as well."""
    module = make_module()
    trained(
        tmp_path,
        module,
        epochs=3,
        pruning_fn="l1_unstructured",
        amount=lambda epoch: [0.5, 0.9, 0.9][epoch],
        apply_pruning=lambda epoch: epoch < 2,
        use_lottery_ticket_hypothesis=lambda epoch: epoch == 0,
        make_pruning_permanent=False,
    )
    found = surgery.sparsity(module)
    names = {name for names in find_coats(module).by_kind.values() for name in names}
    assert {"net.0.weight", "net.0.bias", "net.1.weight", "net.1.bias"} <= names
    assert found.share == pytest.approx(0.95, abs=0.01)
    assert shrunk(module, IMAGE, healthy=0.0).params_after < 0.5 * found.size


@needs_lightning
@pytest.mark.parametrize("permanent", [True, False])
def test_a_checkpoint_of_lightning_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], permanent: bool
) -> None:
    module = make_module()
    trained(
        tmp_path,
        module,
        **ROWS,
        amount=0.5,
        use_global_unstructured=False,
        parameters_to_prune=convolutions(module.net),
        make_pruning_permanent=permanent,
    )
    file = tmp_path / "last.ckpt"
    saved = torch.load(file, weights_only=True)
    assert ("net.0.weight_orig" in saved["state_dict"]) != permanent
    words = ["shrink", "tests.maskers_nets:make_net", "--input", "2x3x9x9", "--checkpoint", str(file)]
    words += ["-o", str(tmp_path / "slim")]
    assert main(words) == 2
    assert "--strip-prefix net." in capsys.readouterr().err
    assert main([*words, "--strip-prefix", "net."]) == 0
    assert "1 name not under 'net.' left out: loss.weight" in capsys.readouterr().err
    masked = make_net()
    load_checkpoint_(masked, file, strip_prefix="net.")
    slim = surgery.load(tmp_path / "slim", make_net())
    assert slim[0].out_channels < 16
    torch.testing.assert_close(slim.eval()(IMAGE), masked.eval()(IMAGE))


@needs_lightning
def test_a_checkpoint_that_needs_code_is_refused(tmp_path: Path) -> None:
    """Hyperparameters may be any object; what a pickle wants to call is never called."""
    module = make_module(data=Path("somewhere"))
    trained(tmp_path, module, pruning_fn="l1_unstructured", amount=0.5)
    with pytest.raises(InputError, match=r"needs the code of pathlib\.\S*Path to be loaded") as raised:
        load_checkpoint_(make_net(), tmp_path / "last.ckpt", strip_prefix="net.")
    assert "save_file(model.state_dict()" in str(raised.value)


@needs_lightning
def test_a_lightning_module_copies_saves_and_loads(tmp_path: Path) -> None:
    module = make_module()
    trainer = trained(
        tmp_path,
        module,
        **ROWS,
        amount=0.5,
        use_global_unstructured=False,
        parameters_to_prune=convolutions(module.net),
        make_pruning_permanent=False,
    )
    result = surgery.shrink(module, IMAGE)
    assert module.trainer is trainer
    assert result.model._trainer is None  # no copy of loaders, loggers and callbacks comes along
    surgery.save(result, tmp_path / "slim")
    assert load_file(tmp_path / "slim" / "model.safetensors").keys() == result.model.state_dict().keys()
    again = surgery.load(tmp_path / "slim", make_module())
    assert type(again).__name__ == "Classifier"
    assert torch.equal(again.eval()(IMAGE), result.model.eval()(IMAGE))
    with quiet():  # the slim module goes on training
        import lightning.pytorch as pl

        further = pl.Trainer(
            max_epochs=1, accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False
        )
        further.fit(again.train(), batches(), batches())
    assert surgery.shrink(module, IMAGE, inplace=True).model is module
    assert module.trainer is trainer
    assert module.net[0].out_channels == result.model.net[0].out_channels


CATALYST: Mapping[str, dict[str, Any]] = {
    "l1": {"pruning_fn": "l1_unstructured", "amount": 0.5},
    "random": {"pruning_fn": "random_unstructured", "amount": 0.5},
    "weights and biases": {"pruning_fn": "l1_unstructured", "amount": 0.5, "keys_to_prune": ["weight", "bias"]},
    "so many": {"pruning_fn": "l1_unstructured", "amount": 20, "layers_to_prune": ["0", "3"]},
    "rows": {"pruning_fn": "ln_structured", "dim": 0, "l_norm": 2, "amount": 0.5, "layers_to_prune": ["0", "3"]},
    "columns": {"pruning_fn": "ln_structured", "dim": 1, "l_norm": 1, "amount": 0.5, "layers_to_prune": ["0", "3"]},
    "random rows": {"pruning_fn": "random_structured", "dim": 0, "amount": 0.5, "layers_to_prune": ["0", "3"]},
    "a function": {"pruning_fn": prune.l1_unstructured, "amount": 0.5},
}


@needs_catalyst
@pytest.mark.parametrize("kind", CATALYST)
@pytest.mark.parametrize("removed", [True, False])
def test_prune_model_shrinks_exactly(kind: str, removed: bool) -> None:
    from catalyst.utils import prune_model, remove_reparametrization

    settings = dict(CATALYST[kind])
    net = nets.lively(make_net())
    prune_model(net, **settings)
    prune_model(net, **settings)  # once more, as in every stage of an experiment
    if removed:
        keys = settings.get("keys_to_prune", ["weight"])
        remove_reparametrization(net, keys, settings.get("layers_to_prune"))
    assert bool(find_coats(net)) != removed
    slim = shrunk(net, IMAGE)
    proven = surgery.shrink(net, IMAGE)
    assert proven.proof is not None
    assert proven.proof.passed
    if kind in STRUCTURED:
        assert slim.params_after < 0.7 * slim.params_before
    else:
        assert surgery.sparsity(net).share > (0.01 if kind == "so many" else 0.6)
    if kind in {"rows", "random rows"}:
        assert slim.model[3].out_channels == 4


@needs_catalyst
def test_prune_model_of_all_layers_stops_at_a_norm_and_leaves_masks() -> None:
    """Structured masks do not go onto gains: prune_model raises in the middle. What it left is read as it is."""
    from catalyst.utils import prune_model

    net = nets.lively(make_net())
    with pytest.raises(ValueError, match="multidimensional"):
        prune_model(net, "ln_structured", 0.5, dim=0, l_norm=2)
    assert find_coats(net).names == ("0.weight",)
    assert shrunk(net, IMAGE).model[0].out_channels < 16
