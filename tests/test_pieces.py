from __future__ import annotations

import pytest
import torch

from surgery.cutting.cut import gathered
from surgery.deciding.parts import AxisCut
from surgery.known import Pattern
from surgery.masks import check_finite, count_subnormals
from surgery.pieces import AT_ONCE, pieces


@pytest.mark.parametrize("shape", [(), (5,), (3, AT_ONCE), (AT_ONCE * 2 + 3,), (7, 1 << 18, 1)])
def test_pieces_are_the_tensor(shape: tuple[int, ...]) -> None:
    tensor = torch.arange(max(1, torch.Size(shape).numel())).reshape(shape)
    found = pieces(tensor)
    assert torch.equal(torch.cat([*found]) if shape else found[0], tensor)
    assert all(piece.numel() <= AT_ONCE or piece.shape[0] == 1 for piece in found)
    assert all(piece.untyped_storage().data_ptr() == tensor.untyped_storage().data_ptr() for piece in found)


def test_a_large_weight_is_gathered_as_a_small_one() -> None:
    weight = torch.randn(1100, 1000, 2)
    keep = tuple(range(0, 1100, 3)), tuple(range(1, 1000, 2)), (1,)
    axes = [AxisCut("w", dim, weight.shape[dim], kept, 1) for dim, kept in enumerate(keep)]
    wanted = weight[list(keep[0])][:, list(keep[1])][:, :, [1]]
    torch.testing.assert_close(gathered(weight, axes), wanted, rtol=0, atol=0)
    torch.testing.assert_close(gathered(weight, axes[1:]), weight[:, list(keep[1])][:, :, [1]], rtol=0, atol=0)
    torch.testing.assert_close(gathered(weight, axes[:1]), weight[list(keep[0])], rtol=0, atol=0)


@pytest.mark.parametrize("scattered", [False, True], ids=["whole rows and columns", "scattered zeros"])
def test_a_pattern_answers_for_large_weights(scattered: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    nonzero = torch.rand(2, 1500, 700, generator=generator) < 0.001 if scattered else torch.ones(2, 1500, 700).bool()
    nonzero[:, ::2] = False
    nonzero[:, :, 3] = False
    pattern = Pattern.of(nonzero.numpy())
    inputs, outputs = torch.rand(2, 700, generator=generator) < 0.1, torch.rand(2, 1500, generator=generator) < 0.1
    assert torch.equal(torch.from_numpy(pattern.rows_on(inputs.numpy())), (nonzero & inputs[:, None]).any(2))
    assert torch.equal(torch.from_numpy(pattern.columns_of(outputs.numpy())), (nonzero & outputs[..., None]).any(1))


def test_what_is_wrong_in_the_last_piece_is_found() -> None:
    layer = torch.nn.Linear(1024, 2 * AT_ONCE // 1024, bias=False)
    with torch.no_grad():
        layer.weight[-1, -1] = 1e-40
    assert count_subnormals(layer) == {"weight": 1}
    with torch.no_grad():
        layer.weight[-1, -1] = float("nan")
    with pytest.raises(Exception, match=r"weight \(1 NaN\)"):
        check_finite(layer)
