"""Criteria: what a channel is worth, by torch-pruning's classes, by gradients, by what flows through it."""

from __future__ import annotations

from surgery.deciding.criteria.activations import variance_scores, wanda_scores
from surgery.deciding.criteria.gradients import Loss
from surgery.deciding.criteria.groups import groups_of
from surgery.deciding.criteria.peers import NOTHING, PEERS, WANTED, Feed, is_peer, named_scores, peer_scores
from surgery.deciding.criteria.slices import slices

__all__ = [
    "NOTHING",
    "PEERS",
    "WANTED",
    "Feed",
    "Loss",
    "groups_of",
    "is_peer",
    "named_scores",
    "peer_scores",
    "slices",
    "variance_scores",
    "wanda_scores",
]
