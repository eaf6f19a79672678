"""The command line. Each command is a file; torch is imported when a command runs, so that `--help` is quick.

Reading order: `door` (errors to exit codes), `app` (the list of commands), `options`, `models`, then the commands.
"""

from __future__ import annotations

from surgery.cli.door import main

__all__ = ["main"]
