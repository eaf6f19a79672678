"""Schedules in other people's training loops: one callback for each, all on `surgery.Pruner`.

`surgery.callbacks.lightning.PruningCallback` and `surgery.callbacks.transformers.PruningCallback` are imported by name,
for each needs its framework. Reading order: `pacing`, `order`, then either of them.
"""
