"""Norms by a mean over channels, one op or written out: where zeros may go, since gain and eps can make up.

`y = x · rsqrt(sum(x²) / n + eps) · gain`. With n′ channels left, the others zero, `gain · sqrt(n / n′)` and
`eps · n / n′`
give the same y. Global response norm divides by the mean itself, `x · g / (sum(g) / n + eps) · gain`: there it is
`gain · n / n′`. So what is needed is a gain that is a parameter of its own, and the attribute that holds eps.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import fx, nn

from surgery.analysis.capture import Program, users_of
from surgery.analysis.graph_modules import GraphModel, corresponding
from surgery.coupling import NormSite
from surgery.registry import arguments

A = torch.ops.aten
CASTS = (A.to.dtype, A._to_copy.default, A.type_as.default, A.contiguous.default, A.clone.default, A.to.dtype_layout)
VIEWS = (A.view.default, A.reshape.default, A.unsqueeze.default)


def norm_sites(model: nn.Module, program: Program) -> dict[str, NormSite]:
    """The norms of a program that a cut can make up for, by the op that averages.

    A gain that anything else reads, too, is none of them.
    """
    found = [site for node in program.calls if (site := _site(model, program, node)) is not None]
    if isinstance(model, GraphModel):  # which holds eps as a number of the op itself
        named = {new.name: old.name for new, old in corresponding(program, model)}
        found = [replace(s, attribute=f"{named[s.eps_node]}.{s.eps_argument}") for s in found if s.eps_node in named]
    readers: dict[str, int] = {}
    for site in found:
        readers[site.gain] = readers.get(site.gain, 0) + 1
    return {site.node: site for site in found if len(program.readers(site.gain)) == readers[site.gain]}


def _site(model: nn.Module, program: Program, node: fx.Node) -> NormSite | None:
    if node.target is A.rms_norm.default:
        bound = arguments(node.target, node.args, node.kwargs)
        weight, eps = bound["weight"], bound["eps"]
        if not isinstance(weight, fx.Node) or weight.name not in program.parameters:
            return None
        value = eps if eps is not None else float(torch.finfo(node.meta["val"].dtype).eps)
        return _with_eps(model, program, node.name, weight.name, 0, node.name, "eps", eps, value)
    if node.target is not A.mean.dim:
        return None
    return _written_out(model, program, node) or _divided_by(model, program, node)


def _divided_by(model: nn.Module, program: Program, mean: fx.Node) -> NormSite | None:
    """`a / (g.mean(dim, keepdim=True) + eps)`, times anything, times a weight: what is divided may be anything, too."""
    bound = arguments(mean.target, mean.args, mean.kwargs)
    _, added = _reader(mean)
    if not bound["keepdim"] or len(bound["dim"] or []) != 1 or added is None or added.target is not A.add.Tensor:
        return None
    eps = next((a for a in added.args if isinstance(a, float)), None)
    divisor, quotient = _reader(added)
    if eps is None or quotient is None or quotient.target is not A.div.Tensor or quotient.args[0] is divisor:
        return None
    node, product = _reader(quotient)
    while product is not None and (factors := _factors(node, product)) is not None:
        for factor in factors:
            laid = _laid_out(factor)
            if laid.name in program.parameters and len(laid.users) == 1:
                site = _with_eps(model, program, mean.name, laid.name, 0, added.name, "other", eps, eps)
                return replace(site, power=1.0) if site is not None else None
        node, product = _reader(product)
    return None


def _reader(node: fx.Node) -> tuple[fx.Node, fx.Node | None]:
    """`(a node after casts, the one op that reads it)`."""
    user = _only_user(node)
    while user is not None and user.target in CASTS and user.args[0] is node:
        node, user = user, _only_user(user)
    return node, user


def _factors(node: fx.Node, product: fx.Node) -> list[fx.Node] | None:
    """What a node is multiplied by in an op; None where it is no plain factor there."""
    terms = product.args[1:] if product.target is A.addcmul.default else product.args
    if product.target not in (A.mul.Tensor, A.addcmul.default) or not any(term is node for term in terms):
        return None
    if sum(term is node for term in product.args) != 1:
        return None
    return [term for term in terms if isinstance(term, fx.Node) and term is not node]


def _laid_out(node: fx.Node) -> fx.Node:
    """What lies behind casts and views that only give it other dims."""
    while node.target in (*CASTS, *VIEWS) and isinstance(node.args[0], fx.Node) and len(node.users) == 1:
        node = node.args[0]
    return node


def _written_out(model: nn.Module, program: Program, mean: fx.Node) -> NormSite | None:
    """`x.pow(2).mean(-1, keepdim=True)`, `rsqrt(it + eps)`, `x * it`, `* weight`, with casts between."""
    bound = arguments(mean.target, mean.args, mean.kwargs)
    square, rank = bound["input"], mean.meta["val"].dim()
    if not bound["keepdim"] or [d % rank for d in bound["dim"] or []] != [rank - 1]:
        return None
    source = _squared(square)
    added = _only_user(mean)
    if source is None or added is None or added.target is not A.add.Tensor:
        return None
    eps = next((a for a in added.args if isinstance(a, float)), None)
    root = _only_user(added)
    if eps is None or root is None or root.target not in (A.rsqrt.default, A.pow.Tensor_Scalar):
        return None
    if root.target is A.pow.Tensor_Scalar and root.args[1] != -0.5:
        return None
    scaled = _only_user(root)
    if scaled is None or scaled.target is not A.mul.Tensor or not any(_same(a, source) for a in scaled.args):
        return None
    found = _gain(program, scaled)
    if found is None:
        return None
    gain, offset = found
    return _with_eps(model, program, mean.name, gain, offset, added.name, "other", eps, eps)


def _squared(node: fx.Node) -> fx.Node | None:
    """x of `x.pow(2)`, `x * x` or `square(x)`."""
    if node.target is A.pow.Tensor_Scalar and node.args[1] == 2:
        return node.args[0] if isinstance(node.args[0], fx.Node) else None
    if node.target is A.mul.Tensor and node.args[0] is node.args[1]:
        return node.args[0] if isinstance(node.args[0], fx.Node) else None
    return node.args[0] if node.target is A.square.default and isinstance(node.args[0], fx.Node) else None


def _same(argument: Any, source: fx.Node) -> bool:
    """Whether an operand is the source, but for casts on either side."""
    return isinstance(argument, fx.Node) and _uncast(argument) is _uncast(source)


def _uncast(node: fx.Node) -> fx.Node:
    while node.target in CASTS and isinstance(node.args[0], fx.Node):
        node = node.args[0]
    return node


def _only_user(node: fx.Node) -> fx.Node | None:
    """The one op that reads this one."""
    users = users_of(node)
    return users[0] if len(users) == 1 else None


def _gain(program: Program, scaled: fx.Node) -> tuple[str, int] | None:
    """The placeholder of the gain that the normalised value is multiplied by, and what is added to it before."""
    node: fx.Node | None = scaled
    while node is not None and (node is scaled or node.target in CASTS):
        node = _only_user(node)
    if node is None or node.target is not A.mul.Tensor:
        return None
    for argument in node.args:
        if not isinstance(argument, fx.Node):
            continue
        factor, offset = _uncast(argument), 0
        if factor.target is A.add.Tensor and 1 in factor.args:
            inner = next((a for a in factor.args if isinstance(a, fx.Node)), None)
            factor, offset = (_uncast(inner), 1) if inner is not None else (factor, 0)
        if factor.name in program.parameters and _only_user(factor) is not None:
            return factor.name, offset
    return None


def _with_eps(
    model: nn.Module,
    program: Program,
    node: str,
    gain: str,
    offset: int,
    eps_node: str,
    argument: str,
    eps: float | None,
    value: float,
) -> NormSite | None:
    """The site with the attribute that holds its eps, looked for in the op's own module; None where there is none."""
    name = program.parameters[gain]
    if isinstance(model, GraphModel):
        return NormSite(node, name, offset, eps_node, argument, "", "", eps, value)
    path = program.module_of(eps_node)
    for attribute, held in _floats(model.get_submodule(path)):
        if "eps" in attribute and held == eps:
            return NormSite(node, name, offset, eps_node, argument, path, attribute, eps, value)
    return None


def _floats(module: nn.Module) -> Iterator[tuple[str, float | None]]:
    for attribute, value in vars(module).items():
        if value is None or isinstance(value, float):
            yield attribute, value
