"""Pictures of the user's own in the page: embedded whole, or refused in one sentence."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from surgery.errors import InputError
from surgery.reporting import report
from tests.reporting.courses import SVG, embedded, png
from tests.reporting.pages import HOSTILE, Page, stranded_result


def page(tmp_path: Path, **given: Any) -> Page:
    path = report(tmp_path / "page.html", overwrite=True, **given)
    return Page(path.read_text(encoding="utf-8"))


def images(shown: Page) -> list[dict[str, str | None]]:
    return [given for tag, given in shown.tags if tag == "img"]


def test_pictures_lie_in_the_page(tmp_path: Path) -> None:
    drawn = tmp_path / "drawn.svg"
    drawn.write_text(SVG)
    pixels = png(tmp_path / "pixels.png")
    jpeg = tmp_path / "photo.jpg"
    jpeg.write_bytes(b"\xff\xd8\xff\xe0 stands for a picture \xff\xd9")
    shown = page(tmp_path, figures=[(pixels, HOSTILE), str(drawn), jpeg])
    assert shown.sections == ["figures", "machine"]
    first, second, third = images(shown)
    assert embedded(str(first["src"])) == pixels.read_bytes()
    assert embedded(str(second["src"])) == drawn.read_bytes()
    assert str(third["src"]).startswith("data:image/jpeg;base64,")
    assert [given["alt"] for given in images(shown)] == [HOSTILE, "drawn", "photo"]
    assert HOSTILE not in shown.html
    policy = next(str(given["content"]) for _, given in shown.tags if given.get("http-equiv"))
    assert "; img-src data:; " in policy
    same = page(tmp_path, figures={pixels: HOSTILE, drawn: ""}, result=stranded_result())
    assert [given["alt"] for given in images(same)] == [HOSTILE, "drawn"]


def test_without_pictures_none_may_be_shown(tmp_path: Path) -> None:
    assert "img-src" not in page(tmp_path, result=stranded_result()).html


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read: No such file"),
        (b"", "is neither a PNG, an SVG nor a JPEG"),
        (b"accuracy,loss\n1,2\n", "is neither a PNG, an SVG nor a JPEG"),
        (b"<html><body/></html>", "is XML, but no SVG"),
        (b"\x89PNG\r\n\x1a\n half of it", "ends before the picture does"),
    ],
)
def test_what_is_no_picture_is_refused_and_nothing_is_left(tmp_path: Path, content: bytes | None, said: str) -> None:
    picture = tmp_path / "picture.png"
    if content is not None:
        picture.write_bytes(content)
    with pytest.raises(InputError, match=re.escape(said)) as refusal:
        page(tmp_path, figures=[picture], result=stranded_result())
    assert "picture.png" in str(refusal.value)
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize("given", ["picture.png", [3], [("picture.png", 3)], Path("picture.png")])
def test_what_is_no_list_of_pictures(tmp_path: Path, given: Any) -> None:
    with pytest.raises(InputError, match="pass"):
        page(tmp_path, figures=given)
