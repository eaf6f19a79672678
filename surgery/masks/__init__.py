"""Masks come in many coats: here every one becomes plain zeros in plain parameters."""

from __future__ import annotations

from surgery.masks.coats import Coats, bake, bake_, find_coats, worn
from surgery.masks.hooks import carry_hooks_
from surgery.masks.keep import apply_keep_masks_
from surgery.masks.numbers import check_finite, count_subnormals, flush_subnormals_
from surgery.masks.state_dicts import merge_state_dict

__all__ = [
    "Coats",
    "apply_keep_masks_",
    "bake",
    "bake_",
    "carry_hooks_",
    "check_finite",
    "count_subnormals",
    "find_coats",
    "flush_subnormals_",
    "merge_state_dict",
    "worn",
]
