"""Ops that only move positions."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from tests.samples.sample import Plain, Sample

A = torch.ops.aten

DIMS = (
    Sample("permute", lambda x: x.permute(2, 0, 1), {"x": (2, 6, 5)}, free="x0 x1 x2", found=(0, 1, 2), along=2),
    Sample(
        "permute, negative", lambda x: x.permute(-1, 0, 1), {"x": (2, 6, 5)}, free="x0 x1 x2", found=(0, 1, 2), along=2
    ),
    Sample(
        "permute_copy",
        lambda x: A.permute_copy.default(x, [1, 0]),
        {"x": (2, 6)},
        free="x0 x1",
        found=(0, 1, 2),
        along=0,
    ),
    Sample("transpose", lambda x: x.transpose(-1, 1), {"x": (2, 6, 5)}, free="x0 x1 x2", found=(0, 1, 2), along=2),
    Sample("swapaxes", lambda x: x.swapaxes(0, 1), {"x": (2, 6, 5)}, free="x0 x1 x2", found=(0, 1, 2), along=0),
    Sample("swapdims", lambda x: x.swapdims(0, 1), {"x": (2, 6, 5)}, free="x0 x1 x2", found=(0, 1, 2), along=0),
    Sample("t", lambda x: x.t(), {"x": (2, 6)}, free="x0 x1", found=(0, 1, 2), along=0),
    Sample("t of a vector", lambda x: x.t(), {"x": (6,)}, free="x0", found=(0, 1, 2), pattern="x0", along=0),
    Sample("numpy_T", A.numpy_T.default, {"x": (2, 6, 5)}, free="x0 x1 x2", found=(0, 1, 2), along=1),
    Sample("mT", A.mT.default, {"x": (2, 6, 5)}, free="x0 x1 x2", found=(0, 1, 2), along=2),
    Sample("adjoint", A.adjoint.default, {"x": (2, 6, 5)}, free="x0 x1 x2", found=(0, 1, 2), along=2),
    Sample("movedim", lambda x: x.movedim(1, -1), {"x": (2, 6, 5)}, free="x0 x1 x2", found=(0, 1, 2), along=2),
    Sample(
        "movedim, two", lambda x: x.movedim((1, 2), (0, 1)), {"x": (2, 6, 5)}, free="x0 x1 x2", found=(0, 1, 2), along=0
    ),
    Sample("moveaxis", lambda x: x.moveaxis(1, -1), {"x": (2, 6, 5)}, free="x0 x1 x2", found=(0, 1, 2), along=2),
    Sample(
        "moveaxis, two",
        lambda x: x.moveaxis((1, 2), (0, 1)),
        {"x": (2, 6, 5)},
        free="x0 x1 x2",
        found=(0, 1, 2),
        along=0,
    ),
    Sample("unsqueeze", lambda x: x.unsqueeze(-2), {"x": (2, 6)}, free="x0 x1", found=(0, 1, 2), along=2),
    Sample(
        "squeeze", lambda x: x.squeeze(), {"x": (3, 1, 6, 1)}, free="x0 x2", found=(0, 1, 2), pattern="x2", to_one=False
    ),
    Sample("squeeze a dim", lambda x: x.squeeze(1), {"x": (2, 1, 6, 1)}, free="x0 x2", found=(0, 1, 2), pattern="x2"),
    Sample(
        "squeeze a dim that is larger",
        lambda x: x.squeeze(0),
        {"x": (3, 6)},
        free="x0 x1",
        found=(0, 1, 2),
        to_one=False,
    ),
    Sample(
        "squeeze dims", lambda x: x.squeeze((1, -1)), {"x": (2, 1, 6, 1)}, free="x0 x2", found=(0, 1, 2), pattern="x2"
    ),
    Sample("flip", lambda x: x.flip(1, -1), {"x": (2, 6, 5)}, free="x0 x1 x2", found=(3, 4, 5)),
)

VIEWS = (
    Sample("view apart", lambda x: x.view(2, 3, 4, 5), {"x": (2, 12, 5)}, free="x0 x1 x2"),
    Sample(
        "view together",
        lambda x: x.view(2, 12),
        {"x": (2, 6, 2)},
        free="x0 x1 x2",
        found=(0, 1, 2, 3, 4, 5),
    ),
    Sample("view with -1", lambda x: x.view(2, -1, 5), {"x": (2, 6, 5)}, free="x0 x1 x2", found=(0, 1, 2)),
    Sample(
        "reshape across an untracked dim",
        lambda x, w: (x.mean((2, 3), keepdim=True) * w).reshape(2, -1),
        {"x": (2, 6, 3, 4), "w": (6, 1, 1)},
        free="x0 x1 w0",
        held=("mean runs over this axis",),
    ),
    Sample("reshape", lambda x: x.reshape(-1, 5), {"x": (2, 6, 5)}, free="x0 x1 x2"),
    Sample("_unsafe_view", lambda x: A._unsafe_view.default(x, [2, 2, 3]), {"x": (2, 6)}, free="x0 x1"),
    Sample("view_copy", lambda x: A.view_copy.default(x, [2, 2, 3]), {"x": (2, 6)}, free="x0 x1"),
    Sample(
        "flatten",
        lambda x: x.flatten(1),
        {"x": (2, 6, 3, 5)},
        free="x0 x1",
        held=("flatten merges it",),
        found=tuple(range(45)),
    ),
    Sample("flatten to a vector", lambda x: x.flatten(), {"x": (1, 6, 1)}, free="x1", found=(0, 1, 2), along=0),
    Sample("unflatten", lambda x: x.unflatten(1, (-1, 2)), {"x": (3, 8, 5)}, free="x0 x1 x2"),
    Sample("unflatten the last dim", lambda x: x.unflatten(-1, (2, 3)), {"x": (4, 6)}, free="x0 x1"),
    Sample("ravel", lambda x: x.ravel(), {"x": (1, 6, 1)}, free="x1", found=(0, 1, 2), along=0),
    Sample("view_as", A.view_as.default, {"x": (12, 5), "y": (3, 4, 5)}, free="x0 x1 y0 y1 y2"),
    Sample("reshape_as", A.reshape_as.default, {"x": (6, 5), "y": (3, 10)}, free="x0 x1 y0 y1"),
    Sample(
        "heads and back",
        lambda x: x.view(3, 5, 2, 4).transpose(1, 2).reshape(3, 2, 5, 4).transpose(1, 2).reshape(3, 5, 8),
        {"x": (3, 5, 8)},
        free="x0 x1 x2",
        found=(0, 1, 2),
        pattern="x2",
        along=2,
    ),
    Sample(
        "copies of heads for grouped queries",
        lambda x: x.view(3, 2, 1, 4).expand(3, 2, 5, 4).reshape(3, 40),
        {"x": (3, 8)},
        free="x0 x1",
    ),
    Sample(
        "copies of channels, one after the other",
        lambda x: x[:, None].expand(3, 4, 6).reshape(3, 24),
        {"x": (3, 6)},
        free="x0 x1",
        found=(0, 1, 2, 6, 7, 8, 12, 13, 14, 18, 19, 20),
    ),
    Sample(
        "channel shuffle by views",
        lambda x: x.view(2, 3, 4, 5).transpose(1, 2).reshape(2, 12, 5),
        {"x": (2, 12, 5)},
        free="x0 x1:4 x2",
        found=(0, 3, 6),
    ),
    Sample(
        "focus slicing",
        lambda x: torch.cat([x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]], 1),
        {"x": (2, 3, 4, 6)},
        free="x0 x1 x2:2 x3:3",
        found=(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11),
    ),
)

STRETCHING = (
    Sample("expand", lambda x: x.expand(2, 6, 5), {"x": (6, 1)}, free="x0", found=(0, 1, 2), pattern="x0"),
    Sample("expand with -1", lambda x: x.expand(3, -1, 5), {"x": (6, 1)}, free="x0", found=(0, 1, 2), pattern="x0"),
    Sample("broadcast_to", lambda x: x.broadcast_to(2, 6), {"x": (1, 6)}, free="x1", found=(0, 1, 2)),
    Sample(
        "expand_as",
        lambda x, y: x.expand_as(y),
        {"x": (6, 1), "y": (2, 6, 5)},
        free="x0 y0 y1 y2",
        found=(0, 1, 2),
        pattern="x0",
    ),
    Sample(
        "expand_as an untracked tensor",
        lambda x, y: x.expand_as(y),
        {"x": (6, 1), "y": Plain((2, 6, 5))},
        held=("expand_as meets an operand whose dim 1 cannot shrink",),
        found=(0, 1, 2),
        pattern="x0",
    ),
    Sample(
        "repeat untracked dims", lambda x: x.repeat(3, 1, 4), {"x": (6, 1)}, free="x0", found=(0, 1, 2), pattern="x0"
    ),
    Sample("repeat channels", lambda x: x.repeat(1, 2), {"x": (3, 6)}, free="x0 x1", found=(0, 1, 2, 6, 7, 8)),
    Sample("tile", lambda x: x.tile(2, 1), {"x": (3, 6)}, free="x0 x1", found=(0, 1, 2)),
    Sample("tile, fewer dims", lambda x: x.tile(2), {"x": (3, 6)}, free="x0 x1", found=(0, 1, 2, 6, 7, 8)),
    Sample(
        "repeat_interleave", lambda x: x.repeat_interleave(2, 1), {"x": (3, 6)}, free="x0 x1", found=(0, 1, 2, 3, 4, 5)
    ),
    Sample(
        "repeat_interleave of a flat tensor",
        lambda x: x.repeat_interleave(3),
        {"x": (2, 6)},
        free="x0 x1",
        along=0,
    ),
    Sample("repeat_interleave, negative dim", lambda x: x.repeat_interleave(2, -1), {"x": (3, 6)}, free="x0 x1"),
)

ROUND = (
    Sample(
        "roll",
        lambda x: x.roll((1, -1), (1, 2)),
        {"x": (2, 6, 5)},
        free="x0",
        held=("roll moves its positions by a fixed number",),
        found=(1, 2, 3),
    ),
    Sample("roll untracked dims", lambda x: x.roll(1, -1), {"x": (2, 6, 1)}, free="x0 x1", found=(0, 1, 2)),
    Sample("roll the flat tensor", lambda x: x.roll(2), {"x": (2, 6)}, held=("roll over all dims",)),
    Sample(
        "channel_shuffle",
        lambda x: F.channel_shuffle(x, 3),
        {"x": (2, 12, 4, 5)},
        free="x0 x1:4 x2 x3",
        found=(0, 3, 6),
    ),
    Sample(
        "native_channel_shuffle",
        lambda x: A.native_channel_shuffle.default(x, 2),
        {"x": (2, 6, 4, 5)},
        free="x0 x1:3 x2 x3",
    ),
    Sample(
        "channel_shuffle of a view",
        lambda x: F.channel_shuffle(x.view(2, 6, 2, 4), 3),
        {"x": (2, 48)},
        free="x0 x1:2",
    ),
)

PIXELS = (
    Sample(
        "pixel_shuffle",
        lambda x: F.pixel_shuffle(x, 2),
        {"x": (2, 12, 3, 5)},
        free="x0 x1:3",
        held=("pixel_shuffle spreads it over space",),
        found=(),
    ),
    Sample(
        "pixel_shuffle of four equal constants",
        lambda x: F.pixel_shuffle(x.repeat_interleave(4, 1), 2),
        {"x": (2, 6, 3, 5)},
        free="x0 x1",
        held=("pixel_shuffle spreads it over space",),
        found=(0, 1, 2),
        resized={"x": (2, 6, 4, 3)},
    ),
    Sample(
        "pixel_shuffle to one channel",
        lambda x: F.pixel_shuffle(x, 2),
        {"x": (2, 4, 3, 5)},
        free="x0",
        held=("pixel_shuffle spreads it over space", "pixel_shuffle makes one channel of it"),
    ),
    Sample(
        "pixel_shuffle unbatched",
        lambda x: F.pixel_shuffle(x, 3),
        {"x": (18, 2, 4)},
        free="x0:2",
        held=("pixel_shuffle spreads it over space",),
    ),
    Sample(
        "pixel_shuffle of untracked channels",
        lambda x, y: F.pixel_shuffle(x + y, 2),
        {"x": (3, 1, 1, 1), "y": Plain((3, 8, 2, 4))},
        held=("add meets an operand whose dim 0 cannot shrink",),
    ),
    Sample(
        "pixel_unshuffle",
        lambda x: F.pixel_unshuffle(x, 2),
        {"x": (2, 6, 4, 8)},
        free="x0 x1",
        held=("pixel_unshuffle moves it into the channels",),
        found=tuple(range(12)),
        resized={"x": (2, 6, 2, 10)},
    ),
    Sample(
        "pixel_unshuffle of one channel",
        lambda x: F.pixel_unshuffle(x, 2),
        {"x": (3, 1, 4, 8)},
        free="x0",
        held=("pixel_unshuffle moves it",),
    ),
)

SAMPLES = (*DIMS, *VIEWS, *STRETCHING, *ROUND, *PIXELS)
