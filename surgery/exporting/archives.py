"""Archives of PyTorch (zip files, stored) without the members that nobody needs."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path


def without_members(archive: io.BytesIO, path: Path, suffix: str) -> None:
    """Write `archive` to `path` without its members whose names end in `suffix`."""
    with zipfile.ZipFile(archive) as full, zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as stripped:
        for name in full.namelist():
            if not name.endswith(suffix):
                stripped.writestr(zipfile.ZipInfo(name), full.read(name))
