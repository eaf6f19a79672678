"""A slim model on disk: weights as safetensors, the plan as JSON, replayed on a fresh model of the user's own class.

Reading order: `manifest` (what surgery.json says), `tensors` (what model.safetensors holds), `saving`, `loading`,
`reopening` (loaded to be trained and saved again), `anatomy` (is it the same model?), `pretrained` and `beside`
(directories of transformers), `directories` (the whole directory appears, or none of it). Nothing is pickled, and
nothing in a file is executed.
"""

from __future__ import annotations

from surgery.checkpoints.directories import bring_back, check_free
from surgery.checkpoints.loading import NAME_IT, load
from surgery.checkpoints.manifest import Manifest, Saved, describe
from surgery.checkpoints.reopening import lineage, reopen
from surgery.checkpoints.saving import save

__all__ = [
    "NAME_IT",
    "Manifest",
    "Saved",
    "bring_back",
    "check_free",
    "describe",
    "lineage",
    "load",
    "reopen",
    "save",
]
