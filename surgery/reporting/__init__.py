"""The report page: one HTML file that says what was removed, why the rest stayed, the proof, and the latencies.

Reading order: `page` (the door), `removal` (what went, layer by layer), `sharing` (which layers share channels),
`staying` (why the rest stayed), `proving`, `winning` (the ladder), `learning` (training), `curves` (sensitivity),
`timing` (distributions and ratios), `attached` (pictures of the user's own), `facts` (machine, versions, how to
reload), `scales` and `figures` (axes and numbers). These compute; what they hand over is drawn by the templates in
`templates/` (`rendering`), which escape every word, for names come from outside.
"""

from __future__ import annotations

from surgery.reporting.page import report
from surgery.reporting.rendering import check_page

__all__ = ["check_page", "report"]
