"""The templates: what they need, and how they are filled in."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from surgery.errors import MissingExtraError
from surgery.reporting import figures

if TYPE_CHECKING:
    from jinja2 import Environment


def check_page() -> None:
    """Say at once what a page needs, before hours are spent on what it is to show.

    Raises:
        MissingExtraError: jinja2 is not installed.
    """
    if importlib.util.find_spec("jinja2") is None:
        raise MissingExtraError("jinja2", "report")


def environment() -> Environment:
    """The templates of this package, which escape every word."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("surgery.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {function.__name__: function for function in figures.FILTERS}
    return made
