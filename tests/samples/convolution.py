"""Convolutions, plain and transposed, every argument varied."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from tests.samples.sample import Sample

SAMPLES = (
    Sample("conv2d", lambda x, w, b: F.conv2d(x, w, b), {"x": (2, 6, 9, 11), "w": (5, 6, 3, 4), "b": (5,)}),
    Sample("conv2d groups", lambda x, w, b: F.conv2d(x, w, b, groups=3), {"x": (2, 6, 9, 11), "w": (12, 2, 3, 4), "b": (12,)}),
    Sample("conv2d depthwise", lambda x, w, b: F.conv2d(x, w, b, groups=6), {"x": (2, 6, 9, 11), "w": (12, 1, 3, 4), "b": (12,)}),
    Sample("conv_transpose2d groups", lambda x, w, b: F.conv_transpose2d(x, w, b, groups=3), {"x": (2, 6, 9, 11), "w": (6, 4, 3, 5), "b": (12,)}),
)
