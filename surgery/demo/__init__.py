"""The demo: a real net, trained here and now, loses its dead channels, keeps its answers and gets faster.

Reading order: `story` (from beginning to end), `steps` (one by one), `digits` and `net` (what is trained), `training`
(how, and the masks), `account` (which filters went, which stayed, and why), `outcome` (every number), `table` (the one
table), `telling` (the printing).
"""

from __future__ import annotations

from surgery.demo.story import main

__all__ = ["main"]
