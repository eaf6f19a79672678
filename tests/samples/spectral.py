"""Fourier transforms and complex numbers."""

from __future__ import annotations

import torch

from tests.samples.sample import Sample

A = torch.ops.aten


def along(op: str) -> Sample:
    """A transform along the last dim, seen through its magnitude."""
    function = getattr(torch.fft, op)
    return Sample(
        op,
        lambda x: function(x, dim=2).abs(),
        {"x": (2, 6, 5)},
        free="x0 x1",
        held=(f"fft_{op} runs over this axis",),
        found=(0,),
    )


def both(op: str) -> Sample:
    """A transform along the last two dims."""
    function = getattr(torch.fft, op)
    return Sample(
        op,
        lambda x: function(x, dim=(-2, -1)).abs(),
        {"x": (2, 6, 4, 5)},
        free="x0 x1",
        held=(f"fft_{op} runs over this axis",),
        found=(0,),
        resized={"x": (2, 6, 3, 4)},
    )


SAMPLES = (
    *(along(op) for op in ("fft", "ifft", "rfft", "irfft", "hfft", "ihfft")),
    *(both(op) for op in ("fft2", "ifft2", "rfft2", "irfft2", "fftn", "ifftn", "rfftn", "irfftn")),
    *(both(op) for op in ("fftshift", "ifftshift")),
    Sample(
        "a transform over the last dims by their sizes",
        lambda x: torch.fft.fftn(x, s=(3,)).abs(),
        {"x": (2, 6, 5)},
        free="x0 x1",
        held=("fft_fftn runs over this axis",),
        found=(0,),
    ),
    Sample(
        "a transform over all dims",
        lambda x: torch.fft.fftn(x).abs(),
        {"x": (2, 6)},
        held=("fft_fftn runs over this axis",),
        found=(),
    ),
    Sample(
        "pairs as complex numbers, turned",
        lambda x, w: torch.view_as_real(torch.view_as_complex(x.view(3, 4, 2)) * torch.view_as_complex(w)).flatten(1),
        {"x": (3, 8), "w": (4, 2)},
        free="x0 x1:4 w0",
        held=("view_as_complex makes one number of two",),
        found=(),
    ),
    Sample(
        "pairs as complex numbers and back",
        lambda x: torch.view_as_real(torch.view_as_complex(x).resolve_conj()),
        {"x": (3, 6, 2)},
        free="x0 x1",
        held=("view_as_complex makes one number of two",),
        found=(0,),
    ),
    Sample(
        "real and imaginary part",
        lambda x: A.real.default(torch.view_as_complex(x)) + A.imag.default(torch.view_as_complex(x)),
        {"x": (3, 6, 2)},
        free="x0 x1",
        held=("view_as_complex makes one number of two",),
        found=(0,),
    ),
    Sample(
        "a conjugate",
        lambda x: torch.view_as_real(A.resolve_conj.default(A._conj.default(torch.view_as_complex(x)))),
        {"x": (3, 6, 2)},
        free="x0 x1",
        held=("view_as_complex makes one number of two",),
        found=(0,),
    ),
    Sample(
        "a conjugate, by its other name",
        lambda x: A.conj.default(torch.view_as_complex(x)).abs(),
        {"x": (3, 6, 2)},
        free="x0 x1",
        held=("view_as_complex makes one number of two",),
        found=(0,),
    ),
    Sample(
        "real and imaginary part of a transform",
        lambda x: (
            A.real.default(torch.fft.fft(x))
            + A.imag.default(torch.view_as_complex(torch.view_as_real(torch.fft.fft(x))))
        ),
        {"x": (3, 6, 5)},
        free="x0 x1",
        held=("fft_fft runs over this axis",),
        found=(0,),
    ),
    Sample(
        "complex",
        lambda x, y: A.complex.default(x, y).abs(),
        {"x": (2, 6), "y": (2, 6)},
        free="x0 x1 y0 y1",
    ),
    Sample("polar", lambda x, y: A.polar.default(x, y).angle(), {"x": (2, 6), "y": (2, 6)}, free="x0 x1 y0 y1"),
)
