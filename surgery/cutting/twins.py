"""A second model with the same code and other tensors: in float64, on the meta device, over the same memory."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

Model = TypeVar("Model", bound=nn.Module)


def twin(model: Model, convert: Callable[[Tensor], Tensor]) -> Model:
    """A deep copy of `model` with `convert(tensor)` in the place of every tensor; `model` itself is not touched.

    No tensor is copied before it is converted, so that a twin on the meta device takes no memory. Tensors that
    are shared stay shared. Works on a model fresh from `torch.nn.utils.prune`, which `copy.deepcopy` refuses.
    """
    memo: dict[int, Any] = {}
    for module in model.modules():
        for leaf in pytree.tree_leaves(dict(vars(module))):
            if isinstance(leaf, Tensor) and id(leaf) not in memo:
                memo[id(leaf)] = _converted(leaf, convert)
    with torch.no_grad(), warnings.catch_warnings():  # of torch.export's own modules, about their own pytree specs
        warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning)
        return copy.deepcopy(model, memo)


def float64_copy(model: Model) -> Model:
    """A copy of `model` that computes in float64 (complex128): parameters, buffers and other tensors it holds.

    An RMSNorm without an eps of its own takes that of its dtype: the copy gets the model's.
    """

    def widen(tensor: Tensor) -> Tensor:
        if tensor.is_floating_point():
            return tensor.to(torch.float64, copy=True)
        return tensor.to(torch.complex128, copy=True) if tensor.is_complex() else tensor.clone()

    wide = twin(model, widen).double()
    for before, after in zip(model.modules(), wide.modules(), strict=True):
        if isinstance(before, nn.RMSNorm) and isinstance(after, nn.RMSNorm) and before.eps is None:
            dtype = torch.get_default_dtype() if before.weight is None else before.weight.dtype
            after.eps = torch.finfo(dtype).eps
    return wide


def meta_copy(model: Model) -> Model:
    """A copy of `model` on the meta device: shapes and dtypes, no storage."""
    return twin(model, lambda tensor: torch.empty_like(tensor, device="meta")).to("meta")


def sharing_copy(model: nn.Module) -> nn.Module:
    """A deep copy whose parameters are new objects over the old memory; buffers are copied, for forward may write them.

    The cut replaces what it changes and writes into nothing (`cut_`), so what stays whole is never there twice.
    """
    return _with_parameters(model, lambda parameter: parameter)


def hollow_copy(model: nn.Module) -> nn.Module:
    """A deep copy whose parameters are shapes on the meta device; buffers are copied, for code may ask for values."""
    return _with_parameters(model, lambda parameter: torch.empty_like(parameter, device="meta"))


def _with_parameters(model: nn.Module, convert: Callable[[Tensor], Tensor]) -> nn.Module:
    memo: dict[int, Any] = {
        id(parameter): _converted(parameter, convert)
        for parameter in model.parameters()
        if type(parameter) is nn.Parameter
    }
    return copy.deepcopy(model, memo)


def _converted(tensor: Tensor, convert: Callable[[Tensor], Tensor]) -> Tensor:
    """The converted tensor, as the kind of tensor it was: a parameter stays one, with its `requires_grad`."""
    new = convert(tensor.detach())
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(new, requires_grad=tensor.requires_grad)
    return new
