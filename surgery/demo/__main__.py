"""`python -m surgery.demo`: the demo without the rest of the command line."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from surgery.demo import main
from surgery.errors import SurgeryError

DESCRIPTION = "A small net is trained on real digits, masked, cut, proven, saved, exported and timed."


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m surgery.demo", description=DESCRIPTION)
    parser.add_argument("--quick", action="store_true", help="train for seconds only, and time nothing")
    parser.add_argument("--directory", type=Path, help="keep all files here (it must be new or empty)")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write a page of it all, as one HTML file")
    parser.add_argument("--overwrite", action="store_true", help="replace the report that is there")
    parser.add_argument(
        "--json", dest="as_json", action="store_true", help="print one JSON object instead of the story"
    )
    return parser.parse_args()


if __name__ == "__main__":
    asked = _asked()
    try:
        sys.exit(main(**vars(asked)))
    except SurgeryError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)
