"""What carries a schedule out on a net that trains: masks, cuts, early values. It knows of no training loop."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import torch
from torch import Tensor, nn
from torch.nn.utils import prune as torch_prune
from torch.optim import Optimizer

from surgery.analysis.capture import evaluating
from surgery.batches import Batch, batches
from surgery.budgets import MEASURES
from surgery.choosing import choose
from surgery.deciding.criteria import Loss
from surgery.deciding.criteria.gradients import loss_of
from surgery.deciding.importance import DATA_DRIVEN
from surgery.errors import InputError
from surgery.inputs import Example, Inputs
from surgery.iterating import kept
from surgery.masks import bake, bake_
from surgery.plans import Plan
from surgery.proof.cost import cost
from surgery.proof.prove import Proof
from surgery.pruning import prune
from surgery.results import Result
from surgery.schedules.how import Structured, Unstructured
from surgery.schedules.schedule import Event, Schedule
from surgery.schedules.wearing import early_values, keep_masks, products, rewind_, share_masked, sparsify_, wear_
from surgery.shrinking import shrink
from surgery.sources.configs import Configured
from surgery.training import cut_optimizer_

STATE = ("cuts", "proofs", "masked", "amount", "dense", "early")


@dataclass(frozen=True)
class Change:
    """What happened to a net before a step.

    Attributes:
        round, step: Where.
        amount: The share of the dense net that the schedule wants gone now.
        zeros: The share of the weights of products that masks hold at zero now.
        params, macs: What the net has now; MACs only where there are example inputs.
        plan: What was cut; None where masks were put on.
        proof: Of the cut, masked against slim; None where there is none.
        loss_masked, loss_slim: The loss on the first batch of the data in eval mode before and after the cut, with the
            same channels zero; None without data or loss.
        rewound: Whether weights went back to early values, and the optimizer forgot what it had learnt.
        resized: Whether parameters or buffers are others, or of other shapes: a wrapper (DDP) is to be made anew.
        notes: What else is to be known.
    """

    round: int
    step: int
    amount: float
    zeros: float
    params: int
    macs: int | None = None
    plan: Plan | None = None
    proof: Proof | None = None
    loss_masked: float | None = None
    loss_slim: float | None = None
    rewound: bool = False
    resized: bool = True
    notes: tuple[str, ...] = ()

    @property
    def max_rel_error(self) -> float | None:
        """Of the cut, over the spread of the outputs, in the net's own precision; None where it was not proven."""
        return None if self.proof is None else self.proof.max_rel_error

    def __str__(self) -> str:
        macs = "" if self.macs is None else f", {self.macs:,} macs"
        done = f"cut to {self.params:,} parameters{macs}"
        done = f"{self.zeros:.1%} of the weights masked" if self.plan is None else done
        proof = "" if self.max_rel_error is None else f", relative error {self.max_rel_error:.1e}"
        back = ", rewound" if self.rewound else ""
        return f"round {self.round + 1}, step {self.step}: {done}{proof}{back}"

    def as_dict(self) -> dict[str, Any]:
        """As plain data, without the plan."""
        plain: dict[str, Any] = msgspec.to_builtins({n: value for n, value in vars(self).items() if n != "plan"})
        return plain | {"max_rel_error": self.max_rel_error}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any], plan: Plan | None = None) -> Change:
        """What `as_dict` returned, with its plan."""
        change = msgspec.convert({name: value for name, value in plain.items() if name != "max_rel_error"}, cls)
        return replace(change, plan=plan)


class Pruner:
    """Carries a schedule out, whatever loop trains the net (mutable).

        pruner = surgery.Pruner(schedule, net, steps=steps_of_a_round, example_inputs=x)
        for round in range(pruner.rounds):
            optimizer, learning_rates = ...  # the learning rate starts anew
            for step, batch in ...:
                pruner.before_step(round, step, optimizer)
                ...  # as ever, with pruner.model

    Args:
        schedule: When how much goes.
        model: The net; it is changed in place. What `amount` is a share of is the net as it is given here.
        steps: The optimizer's steps in a round.
        example_inputs, example_kwargs: One call of the net; needed where channels are chosen.
        data: Batches for an importance that looks at data, and for winning back what a removal costs.
        loss: As for `surgery.choose`.
        share: Called with a function; returns what that returns. With several processes: where it runs in the first one
            and all get its value.

    Attributes:
        model: The net.

    Raises:
        InputError: Channels are to be chosen and there are no example inputs; no step in a round.
    """

    def __init__(
        self,
        schedule: Schedule,
        model: nn.Module,
        *,
        steps: int,
        example_inputs: Example | None = None,
        example_kwargs: Mapping[str, Any] | None = None,
        data: Any = None,
        loss: Loss | None = None,
        share: Callable[[Callable[[], Any]], Any] | None = None,
    ) -> None:
        if not isinstance(schedule, Schedule):
            raise InputError(f"the schedule is a {type(schedule).__name__}", "give surgery.OneShot(0.5), or another")
        if steps < 1:
            raise InputError(f"a round has {steps} steps", "let it have one at least")
        given = example_inputs is not None or example_kwargs
        self.inputs = Inputs.of(() if example_inputs is None else example_inputs, example_kwargs) if given else None
        if isinstance(schedule.how, Structured) and self.inputs is None:
            raise InputError("channels are chosen by running the net, and there is no example", "give example_inputs")
        self.schedule, self.model, self.steps = schedule, model, steps
        self.data, self.loss = data, loss
        self.share: Callable[[Callable[[], Any]], Any] = share or (lambda make: make())
        self.snapshot = schedule.snapshot_at(steps)
        self.early: Mapping[str, Tensor] | None = getattr(schedule, "early", None)
        self.dense = {} if self.inputs is None else measures(model, self.inputs)
        self.cuts: list[Plan] = []
        self.proofs: list[Proof | None] = []
        self.amount = 0.0
        self.configured = Configured.of(model)

    @property
    def rounds(self) -> int:
        """How many times the loop is to train for its full length."""
        return self.schedule.rounds

    def before_step(self, round: int, step: int, optimizer: Optimizer | None = None) -> Change | None:
        """What the schedule wants before this step, done in place; None where that is nothing.

        Args:
            round, step: Both counted from 0.
            optimizer: Its state is cut with the net, and forgotten where weights are rewound.

        Raises:
            InputError: The net has no weights to mask, or cannot be narrowed as far; data or loss fail.
            CheckError: The proof of a cut failed.
            CaptureError: The net cannot be captured, so that no channels can be chosen.
        """
        if round == 0 and step == self.snapshot:
            self.early = early_values(self.model)
        event = self._event(round, step)
        if event is None:
            return None
        with same_random_numbers(self.model):
            change = self._carried_out(event, optimizer)
        self.amount = event.amount
        return replace(change, round=round, step=step)

    def due(self, round: int, step: int) -> bool:
        """Whether there is something to do before this step; nothing is done."""
        return (round == 0 and step == self.snapshot) or self._event(round, step) is not None

    def _event(self, round: int, step: int) -> Event | None:
        return next((one for one in self.schedule.events(round, self.steps) if one.step == step), None)

    def _carried_out(self, event: Event, optimizer: Optimizer | None) -> Change:
        how, before = self.schedule.how, set(keep_masks(self.model))
        change = Change(0, 0, event.amount, 0, 0)
        if isinstance(how, Structured):
            if not how.cut or event.rewind:
                wear_(self.model, Plan.from_json(self.share(lambda: self._chosen(event, how).to_json())))
            else:
                change = self._cut(event, how, optimizer)
        elif isinstance(how, Unstructured):
            sparsify_(self.model, event.amount, how)
        if event.rewind:
            self._rewind_(optimizer)
            if isinstance(how, Structured) and how.cut and event.last:
                change = self._cut(event, how, optimizer)
        resized = (change.plan is not None and not change.plan.empty) or set(keep_masks(self.model)) != before
        zeros = share_masked(products(self.model))
        now = cost(self.model, self.inputs) if self.inputs is not None else None
        params = sum(p.numel() for p in self.model.parameters()) if now is None else now.params
        macs = None if now is None else now.macs
        return replace(change, zeros=zeros, params=params, macs=macs, rewound=event.rewind, resized=resized)

    def _rewind_(self, optimizer: Optimizer | None) -> None:
        if self.early is None:
            raise InputError("there are no early values to go back to", "train from the first step on, or give early=")
        rewind_(self.model, self.early)
        if optimizer is not None:
            optimizer.state.clear()

    def _chosen(self, event: Event, how: Structured) -> Plan:
        assert self.inputs is not None, "checked at the start"
        args, kwargs = self.inputs.args, self.inputs.kwargs
        data = self.data if looks_at_data(how) else None
        return choose(self.model, args, kwargs, data=data, loss=self.loss, **self._budget(event, how), **how.choosing)

    def _budget(self, event: Event, how: Structured) -> dict[str, Any]:
        """What is to be left, of what the net was at first."""
        left = 1 - event.amount
        if how.budget == "keep_ratio":
            return {"keep_ratio": left / (1 - self.amount) if self.cuts else left}
        if how.budget == "latency":
            return {"latency": f"{self.dense['latency'] * left:.9g}ms" if "latency" in self.dense else left}
        return {how.budget: int(self.dense[how.budget] * left)}

    def _cut(self, event: Event, how: Structured, optimizer: Optimizer | None) -> Change:
        """Cut the net and what the optimizer holds, in place, as the first process decides."""
        mine: list[tuple[Result, nn.Module]] = []

        def decide() -> tuple[str, Change]:
            result, masked, change = self._decided(event, how)
            mine.append((result, masked))
            return result.plan.to_json(), change

        told: str
        change: Change
        told, change = self.share(decide)
        plan = mine[0][0].plan if mine else Plan.from_json(told)
        bake_(self.model)
        if mine:
            adopt_(self.model, mine[0][1])
            self.model = plan.apply_(self.model)
        else:  # its weights come with the first wrapper made around it
            self.model = plan.replay_(self.model)
        for parameter in self.model.parameters():
            parameter.grad = None
        if optimizer is not None:
            cut_optimizer_(optimizer, plan, self.model)
        self.cuts.append(plan)
        self.proofs.append(change.proof)
        if plan.aim is not None:
            self.dense.setdefault("latency", plan.aim.dense_ms)
        return replace(change, plan=plan)

    def _decided(self, event: Event, how: Structured) -> tuple[Result, nn.Module, Change]:
        """What is to go, the net in its old shapes in which it is zero, and how far the two are apart."""
        assert self.inputs is not None, "checked at the start"
        args, kwargs = self.inputs.args, self.inputs.kwargs
        data = None if self.data is None else kept(self.data, how.samples)
        if event.rewind:
            masked = bake(self.model)
            result = shrink(masked, args, kwargs, round_to=how.round_to or 1, prove=how.prove, keep_class=True)
        else:
            told = {**how.choosing, **self._budget(event, how)}
            done = prune(
                self.model, args, kwargs, data=data, loss=self.loss, rungs=how.rungs, samples=how.samples,
                prove=how.prove, **told,
            )  # fmt: skip
            result, masked = done, done.compensated.model
        batch = None if data is None else next(iter(batches(data, self.model, self.inputs)))
        before, after = (self._loss(model, batch) for model in (masked, result.model))
        notes = result.notes + ((str(result.plan.aim),) if result.plan.aim is not None else ())
        change = Change(0, 0, event.amount, 0, 0, None, None, result.proof, before, after, notes=notes)
        return result, masked, change

    def _loss(self, model: nn.Module, batch: Batch | None) -> float | None:
        """The loss on a batch in eval mode; None where there is none of either."""
        if batch is None:
            return None
        with evaluating(model), torch.enable_grad():
            output = batch.run(model)
            if self.loss is None and getattr(output, "loss", None) is None:
                return None
            return float(loss_of(output, batch, self.loss).detach())

    def result(self) -> Result | None:
        """The net and all that was cut of it, for `surgery.save`, `recover` and `report`; None before a cut."""
        if not self.cuts or self.inputs is None:
            return None
        now = cost(self.model, self.inputs)
        record = {
            "schedule": repr(self.schedule),
            "cuts": len(self.cuts),
            "proof_is_of": "the last cut, as it was made",
        }
        return Result(
            model=self.model,
            plan=self.cuts[-1],
            proof=self.proofs[-1],
            params_before=int(self.dense["params"]),
            params_after=now.params,
            macs_before=int(self.dense["macs"]),
            macs_after=now.macs,
            inputs=self.inputs,
            configured=self.configured,
            earlier=tuple(self.cuts[:-1]),
            training=(record,),
        )

    def state_dict(self) -> dict[str, Any]:
        """All that a run needs to go on from here beside the net's own state: plain data and tensors."""
        return {
            "cuts": [plan.to_json() for plan in self.cuts],
            "proofs": [None if proof is None else msgspec.to_builtins(proof) for proof in self.proofs],
            "masked": sorted(keep_masks(self.model)),
            "amount": self.amount,
            "dense": dict(self.dense),
            "early": None if self.early is None else dict(self.early),
        }

    def load_state_dict(self, state: Mapping[str, Any], optimizer: Optimizer | None = None) -> None:
        """Take that up again; the net becomes as narrow and masked as it was, and waits for its weights.

        Args:
            state: What `state_dict` returned.
            optimizer: One over the net as it is now: it goes on over the narrow one, and waits for its state.

        Raises:
            InputError: It is no such state.
            PlanError: The net is not as it was at the start.
        """
        if not isinstance(state, Mapping) or set(STATE) - set(state):
            raise InputError("this is no state of a Pruner", f"give what state_dict() returned: {', '.join(STATE)}")
        for text in state["cuts"]:
            plan = Plan.from_json(text)
            self.model = plan.replay_(self.model)
            if optimizer is not None:
                cut_optimizer_(optimizer, plan, self.model)
            self.cuts.append(plan)
        self.proofs += [None if proof is None else msgspec.convert(proof, Proof) for proof in state["proofs"]]
        modules = dict(self.model.named_modules())
        for name in state["masked"]:
            path, _, attribute = name.rpartition(".")
            if name not in keep_masks(self.model):
                torch_prune.identity(modules[path], attribute)
        self.amount, self.dense, self.early = state["amount"], dict(state["dense"]), state["early"]


def measures(model: nn.Module, inputs: Inputs) -> dict[str, float]:
    """What a net has of everything that can be budgeted by counting."""
    return {name: float(measure(model, inputs)) for name, measure in MEASURES.items()}


def looks_at_data(how: Structured) -> bool:
    """Whether data changes what is chosen; where it does not, none is read."""
    return not isinstance(how.importance, str) or how.importance in DATA_DRIVEN


def adopt_(model: nn.Module, masked: nn.Module) -> None:
    """The weights of a masked copy, in place, and the biases that it was given."""
    missing = [name for name in dict(masked.named_parameters()) if name not in dict(model.named_parameters())]
    for name in missing:
        path, _, attribute = name.rpartition(".")
        made = copy.deepcopy(masked.get_parameter(name))
        setattr(model.get_submodule(path), attribute, made)
    model.load_state_dict(masked.state_dict())


@contextmanager
def same_random_numbers(model: nn.Module) -> Iterator[None]:
    """Whatever is drawn meanwhile, training goes on with the random numbers that it would have had."""
    devices = {tensor.device for tensor in model.parameters() if tensor.is_cuda}
    with torch.random.fork_rng(devices=sorted(device.index or 0 for device in devices)):
        yield
