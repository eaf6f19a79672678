"""The data of the demo: real handwritten digits that come with scikit-learn, nothing to download."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from surgery.errors import MissingExtraError

HELD_BACK = 450
"""Pictures that training never sees: about a quarter."""


@dataclass(frozen=True)
class Digits:
    """Pictures `[n, 1, 8, 8]` from 0 to 1 with their digits `[n]`: some to learn from, some held back for the test."""

    pictures: Tensor
    labels: Tensor
    test_pictures: Tensor
    test_labels: Tensor


def load_digits(seed: int = 0) -> Digits:
    """The 1797 digits, split with a fixed seed, every digit in its share.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    try:
        from sklearn import datasets, model_selection
    except ImportError as error:
        raise MissingExtraError("sklearn", "demo") from error
    raw = datasets.load_digits()
    split = model_selection.train_test_split(
        raw.images / 16.0, raw.target, test_size=HELD_BACK, random_state=seed, stratify=raw.target
    )
    pictures, test_pictures = (torch.as_tensor(part, dtype=torch.float32).unsqueeze(1) for part in split[:2])
    labels, test_labels = (torch.as_tensor(part, dtype=torch.int64) for part in split[2:])
    return Digits(pictures, labels, test_pictures, test_labels)
