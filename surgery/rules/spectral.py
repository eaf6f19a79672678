"""Fourier transforms and complex numbers: a transform reads along its dims, the others pass."""

from __future__ import annotations

from typing import Any

import torch

from surgery.calls import Call, KnownCall, Value
from surgery.known import Known
from surgery.layout import Layout
from surgery.registry import rule
from surgery.rules.pointwise import merge
from surgery.rules.spatial import flattened

_ONE = "fft_fft fft_ifft fft_rfft fft_irfft fft_hfft fft_ihfft".split()
_TWO = "fft_fft2 fft_ifft2 fft_rfft2 fft_irfft2".split()
_MANY = "fft_fftn fft_ifftn fft_rfftn fft_irfftn fft_fftshift fft_ifftshift".split()


def _dims(dim: Any, rank: int, size: Any) -> list[int]:
    """The dims of a transform: those named, or as many of the last as sizes are, or all."""
    if isinstance(dim, int):
        return [dim % rank]
    if dim is not None:
        return [d % rank for d in dim]
    return list(range(rank - len(size), rank)) if size is not None else list(range(rank))


@rule(*(f"aten.{op}.default" for op in (*_ONE, *_TWO, *_MANY)))
def transform(call: Call, input: Value, dim: Any = None, s: Any = None, **_: Any) -> Layout:
    """Every output along the dims reads all inputs along them."""
    layout = call.hold(input.layout, _dims(dim, input.layout.rank, s), f"{call.name} runs over this axis")
    return Layout(call.shape, layout.blocks)


@transform.known
def _known_transform(call: KnownCall, input: Known, dim: Any = None, s: Any = None, **_: Any) -> Known:
    """The transform of zeros is zero."""
    flat = flattened(input, _dims(dim, len(input.shape), s))
    varies = flat.varies | (flat.value != 0)
    return Known(call.shape, torch.zeros([1] * len(call.shape), dtype=call.dtype), varies)


@rule("aten.view_as_complex.default")
def view_as_complex(call: Call, input: Value) -> Layout:
    """`x [..., 2] -> [...]`: real and imaginary part are one number."""
    last = input.layout.rank - 1
    layout = call.hold(input.layout, [last], "view_as_complex makes one number of two")
    return Layout(call.shape, tuple(b.squeeze(last) for b in layout.blocks))


@view_as_complex.known
def _known_view_as_complex(call: KnownCall, input: Known) -> Known:
    """Of complex numbers only zeros are followed, written as real ones."""
    last = len(input.shape) - 1
    held = input.held(last)
    varies = (held.varies | (held.value != 0)).any(last)
    return Known(call.shape, torch.zeros([1] * last, dtype=call.dtype), varies)


@rule("aten.complex.default", "aten.polar.default")
def join(call: Call, **parts: Value) -> Layout:
    """Complex numbers of two real ones each."""
    return merge(call, [value.layout for value in parts.values()], call.shape)


@join.known
def _known_join(call: KnownCall, **_: Any) -> Any:
    return call.anything()


@rule("aten.view_as_real.default")
def view_as_real(call: Call, input: Value) -> Layout:
    """`z [...] -> [..., 2]`: two numbers of each."""
    return Layout(call.shape, tuple(b[..., None] for b in input.layout.blocks))


@view_as_real.known
def _known_view_as_real(call: KnownCall, input: Known) -> Known:
    return Known(
        call.shape, input.value.detach().cpu().abs()[..., None], (input.varies | (input.value != 0))[..., None]
    )


@rule("aten.real.default", "aten.imag.default", "aten._conj.default", "aten.conj.default", "aten.resolve_conj.default")
def part(call: Call, input: Value) -> Layout:
    """Each number's own real or imaginary part, or its conjugate."""
    return input.layout


@part.known
def _known_part(call: KnownCall, input: Known) -> Known:
    return Known(call.shape, input.value.detach().cpu().abs(), input.varies | (input.value != 0))
