"""How the demo speaks: steps on stderr as progress, results on stdout."""

from __future__ import annotations

import sys
import textwrap

from rich.console import Console, RenderableType

WIDEST = 100


class Teller:
    """Says what happens.

    Args:
        silent: Say nothing on stdout (for JSON); the steps are announced all the same.
    """

    def __init__(self, *, silent: bool) -> None:
        self.silent = silent
        self.steps = 0
        self.out = Console(file=sys.stdout, highlight=False, markup=False, emoji=False)
        self.err = Console(stderr=True, highlight=False, markup=False, emoji=False)

    def step(self, title: str) -> None:
        """Announce the next step."""
        self.steps += 1
        self.err.print(f"\n{self.steps}. {title}", style="bold", soft_wrap=True)

    def note(self, text: str) -> None:
        """Something about the run itself."""
        self.err.print(text, soft_wrap=True)

    def say(self, text: str, *, indent: int = 3, bullet: str = "") -> None:
        """One result: a paragraph, indented, after its bullet if it has one."""
        if self.silent:
            return
        first = " " * indent + bullet
        width = min(self.out.width, WIDEST)
        lines = textwrap.wrap(
            text, width, initial_indent=first, subsequent_indent=" " * len(first), break_on_hyphens=False
        )
        self.out.print("\n".join(lines), soft_wrap=True)

    def show(self, what: RenderableType) -> None:
        """A table."""
        if not self.silent:
            self.out.print(what)
