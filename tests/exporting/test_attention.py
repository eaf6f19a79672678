"""Fused attention in ONNX: rows that see no key, and queries of other ranks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from surgery.exporting import export


class Padded(nn.Module):
    """Two layers of causal attention under a padding mask: what a row without keys gives spoils the next layer."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.first, self.second = nn.Linear(8, 24), nn.Linear(8, 24)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        sees = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).tril() & (mask[:, None, None, :] > 0)
        if self.kind != "bool":
            low = float("-inf") if self.kind == "-inf" else torch.finfo(x.dtype).min
            sees = torch.zeros(sees.shape, dtype=x.dtype).masked_fill(~sees, low)
        for layer in (self.first, self.second):
            q, k, v = (t.unflatten(-1, (2, 4)).transpose(1, 2) for t in layer(x).chunk(3, -1))
            x = x + F.scaled_dot_product_attention(q, k, v, attn_mask=sees).transpose(1, 2).flatten(2)
        return x


@pytest.mark.parametrize("kind", ["bool", "-inf", pytest.param("lowest", marks=pytest.mark.slow)])
def test_rows_that_see_no_key_are_as_in_torch(kind: str, tmp_path: Path) -> None:
    mask = torch.ones(2, 6, dtype=torch.long)
    mask[1, :3] = 0
    model, x = Padded(kind), torch.randn(2, 6, 8)
    assert model(x, mask).isfinite().all()
    done = export(model, tmp_path / "a.onnx", (x, mask))
    assert done.parity.max_rel_error < 1e-6


class Ranks(nn.Module):
    """Attention over [..., tokens, width], as windows and units of vision nets have it."""

    def __init__(self, causal: bool, masked: bool) -> None:
        super().__init__()
        self.causal, self.masked = causal, masked

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        sees = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool).triu() if self.masked else None
        return F.scaled_dot_product_attention(q, k, v, attn_mask=sees, is_causal=self.causal, scale=0.3)


@pytest.mark.parametrize(
    ("lead", "causal", "masked"), [((), True, False), ((), False, True), ((2, 3, 2), False, False)]
)
def test_queries_of_other_ranks(lead: tuple[int, ...], causal: bool, masked: bool, tmp_path: Path) -> None:
    q, k, v = torch.randn(4, *lead, 6, 5), torch.randn(4, *lead, 4, 5), torch.randn(4, *lead, 4, 7)
    done = export(Ranks(causal, masked), tmp_path / "a.onnx", (q, k, v))  # rows 4 and 5 of `masked` see no key
    assert done.parity.max_rel_error < 1e-6
    assert done.parity.batch_sizes == (1, 3, 4, 5)
