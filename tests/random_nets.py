"""Random nets for Hypothesis: a list of genes is read as a program, and every list is a valid one.

A gene that makes no sense where it stands (groups that do not divide, a pool larger than its input) is passed over, so
that a failing example shrinks by leaving genes out and by making their numbers smaller: small ones mean plain layers.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from tests import random_steps as steps
from tests.random_builder import NUMBERS, ZEROS, Builder, Gene, RandomNet, Skip
from tests.random_kinds import KINDS, pick
from tests.random_kinds_tokens import TOKEN_KINDS, TOKEN_OFTEN

NOTHING = "nothing"
"""What a gene that plays no part shrinks to."""

OFTEN = ("conv", "norm", "activation", "conv", "residual", "conv", "norm", "activation")

INPUTS = (
    ((4, 8, 8),), ((3, 8, 8), (6, 8, 8)), ((4, 8, 8), (1, 8, 8)), ((6, 8, 8), (5,)), ((4, 12),), ((1, 8, 8),),
    ((6, 8),), ((5, 12),),
)  # fmt: skip
"""Shapes of the inputs, without the batch."""

TOKENS = (6, 7)
"""Those of `INPUTS` that are tokens: the last dim holds channels."""


@dataclass(frozen=True)
class Recipe:
    """What a net is built from: its steps, a stem of so many channels (0: none), its inputs, outputs and head."""

    genes: tuple[Gene, ...]
    stem: int
    inputs: int
    outputs: int
    head: int

    def net(self, *, zeros: bool = True) -> tuple[RandomNet, tuple[Tensor, ...]]:
        """The net, in eval mode, and example inputs of batch 2."""
        net, drawn = self._built(zeros, inplace=True)
        inputs = tuple(x[:2].clone() for x in drawn)
        try:
            net(*inputs)
        except RuntimeError:  # autograd forbids some writes into views, and so does torch.export
            net, _ = self._built(zeros, inplace=False)
        return net, tuple(x[:2].clone() for x in drawn)

    def _built(self, zeros: bool, *, inplace: bool) -> tuple[RandomNet, list[Tensor]]:
        generator = torch.Generator().manual_seed(11)
        drawn = [torch.randn(3, *shape, generator=generator) for shape in pick(INPUTS, self.inputs)]
        builder = Builder([x.clone() for x in drawn], zeros, inplace)
        if self.stem and self.inputs in TOKENS:
            stem = Gene("linear", zeros=self.stem % 5, seed=self.stem)
            builder.call(stem, nn.Linear(builder.values[0].shape[2], self.stem), 0)
        elif self.stem:
            kind = nn.Conv2d if builder.values[0].dim() == 4 else nn.Conv1d
            stem = Gene("conv", zeros=self.stem % 5, seed=self.stem)
            builder.call(stem, kind(builder.values[0].shape[1], self.stem, 3, padding=1), 0)
        for gene in self.genes:
            try:
                if gene.kind != NOTHING:
                    KINDS[gene.kind](builder, gene)
            except Skip:
                continue
        returns = _returns(builder, self)
        form = (
            pick(("tensor", "tuple", "dict"), self.outputs)
            if len(returns) == 1
            else pick(("tuple", "dict"), self.outputs)
        )
        return RandomNet(builder.members, builder.calls, returns, form).eval(), drawn


def _returns(b: Builder, recipe: Recipe) -> tuple[int, ...]:
    """A head on the latest value (pool and linear, a convolution, or none), and perhaps an earlier value."""
    latest = len(b.values) - 1
    gene = Gene("linear", seed=recipe.head)
    if recipe.head % 4 != 3 or not b.members:
        with contextlib.suppress(Skip):
            _head(b, gene, latest, dense=recipe.head % 4 != 2, tokens=recipe.inputs in TOKENS)
    found = [len(b.values) - 1]
    if recipe.outputs % 6 > 2 and latest > 0:
        found.append(latest - recipe.outputs % latest)
    return tuple(dict.fromkeys(found))


def _head(b: Builder, gene: Gene, latest: int, *, dense: bool, tokens: bool) -> None:
    rank = b.values[latest].dim()
    if rank == 3 and tokens:
        if dense:
            b.call(gene, steps.Apply("mean over tokens", lambda x: x.mean(1)), latest)
        b.call(gene, nn.Linear(b.values[-1].shape[-1], 5), len(b.values) - 1)
        return
    if rank == 4 and not dense:
        b.call(gene, nn.Conv2d(b.values[latest].shape[1], 3, 1), latest)
        return
    if rank == 4:
        b.call(gene, nn.AdaptiveAvgPool2d(1), latest)
    if rank > 2:
        b.call(gene, steps.Apply("flatten", lambda x: x.flatten(1) if x.dim() == 4 else x.mean(2)), len(b.values) - 1)
    b.call(gene, nn.Linear(b.values[-1].shape[1], 5), len(b.values) - 1)


def genes(kinds: tuple[str, ...]) -> st.SearchStrategy[Gene]:
    """One gene of these kinds."""
    number = st.integers(0, 11)
    return st.builds(
        Gene,
        kind=st.sampled_from((NOTHING, *kinds)),
        source=st.sampled_from((0, 0, 0, 0, 0, 1, 2, 3)),
        zeros=st.integers(0, len(ZEROS) - 1),
        seed=st.integers(0, 99),
        numbers=st.tuples(*[number] * NUMBERS),
    )


def recipes(max_genes: int = 14) -> st.SearchStrategy[Recipe]:
    """Recipes of up to so many genes, on feature maps or on tokens."""
    return st.one_of(_on_maps(max_genes), _on_tokens(max_genes // 2))


def _on_maps(max_genes: int) -> st.SearchStrategy[Recipe]:
    """Plain layers, single ops and all the other kinds together are as likely as each other."""
    return st.builds(
        Recipe,
        genes=st.lists(genes((*OFTEN * 2, *KINDS, *("op",) * len(KINDS))), min_size=5, max_size=max_genes).map(tuple),
        stem=st.sampled_from((8, 6, 12, 9, 0)),
        inputs=st.sampled_from((0, 0, 0, 1, 2, 3, 4, 5)),
        outputs=st.integers(0, 5),
        head=st.sampled_from((0, 0, 1, 2, 3)),
    )


def _on_tokens(max_genes: int) -> st.SearchStrategy[Recipe]:
    """Attention and the other layers of transformers, recurrent ones, and now and then anything else."""
    return st.builds(
        Recipe,
        genes=st.lists(
            genes((*TOKEN_OFTEN * 3, *TOKEN_KINDS, "activation", "binary", "split", "reshape", "again")),
            min_size=1,
            max_size=max_genes,
        ).map(tuple),
        stem=st.sampled_from((8, 6, 12, 0)),
        inputs=st.sampled_from(TOKENS),
        outputs=st.integers(0, 5),
        head=st.sampled_from((0, 0, 1, 2, 3)),
    )
