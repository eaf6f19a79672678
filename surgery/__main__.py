"""`python -m surgery`."""

from __future__ import annotations

import sys

from surgery.cli import main

sys.exit(main())
