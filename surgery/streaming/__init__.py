"""Weights that stay in their files: a model on the meta device is studied tensor by tensor.

Reading order: `shards` (what lies where), `fitting` (which is whose), `stored` (a tensor that reads itself), `opening`.
"""

from __future__ import annotations

from surgery.streaming.opening import check_held, check_streamable, masked, open_stored, scored

__all__ = ["check_held", "check_streamable", "masked", "open_stored", "scored"]
