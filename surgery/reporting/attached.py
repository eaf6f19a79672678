"""Pictures of the user's own, embedded: the page stays one file that needs nothing beside it."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from surgery.errors import InputError

Given = Mapping[str | os.PathLike[str], str] | Iterable[str | os.PathLike[str] | tuple[str | os.PathLike[str], str]]
"""Paths of pictures with their captions, as a mapping or in pairs; a path alone is captioned by its name."""

PNG, PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
JPEG, JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
WAY_OUT = "give the path of a .png, .svg or .jpg file"


@dataclass(frozen=True)
class Attached:
    """A picture as it stands in the page."""

    name: str
    caption: str
    address: str


def attached(figures: Given) -> tuple[Attached, ...]:
    """The pictures, read and embedded.

    Raises:
        InputError: A file is missing, cannot be read, or is no whole picture.
    """
    given = figures.items() if isinstance(figures, Mapping) else figures
    if isinstance(figures, str | bytes | os.PathLike):
        raise InputError(f"figures is the path {str(figures)!r}", "pass a list of paths, or {path: caption}")
    found = []
    for one in given:
        path, caption = one if isinstance(one, tuple) else (one, "")
        if not isinstance(path, str | os.PathLike) or not isinstance(caption, str):
            raise InputError(f"a figure is {one!r}", "pass paths, or (path, caption) pairs")
        found.append(_read(Path(path), caption))
    return tuple(found)


def _read(path: Path, caption: str) -> Attached:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"the figure {str(path)!r} cannot be read: {error.strerror}", WAY_OUT) from error
    kind = _kind(content, path)
    encoded = base64.b64encode(content).decode()
    return Attached(path.name, caption or path.stem, f"data:image/{kind};base64,{encoded}")


def _kind(content: bytes, path: Path) -> str:
    """What a picture is, by its content, whatever its name.

    Raises:
        InputError: It is none, or was cut off.
    """
    for kind, start, end in (("png", PNG, PNG_END), ("jpeg", JPEG, JPEG_END)):
        if content.startswith(start):
            if not content.rstrip(b"\0").endswith(end):
                raise InputError(f"the figure {str(path)!r} ends before the picture does", "write it again")
            return kind
    try:
        root = ElementTree.fromstring(content)  # scripts in it do not run: a browser shows it as an image
    except (ElementTree.ParseError, ValueError) as error:
        raise InputError(f"the figure {str(path)!r} is neither a PNG, an SVG nor a JPEG", WAY_OUT) from error
    if root.tag not in ("svg", "{http://www.w3.org/2000/svg}svg"):
        raise InputError(f"the figure {str(path)!r} is XML, but no SVG", WAY_OUT)
    return "svg+xml"
