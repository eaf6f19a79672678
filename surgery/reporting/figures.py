"""Numbers as people read them, and the class of a verdict; the templates know these functions as filters."""

from __future__ import annotations

from typing import Any

NARROW = "\u202f"
"""A narrow space that no line breaks at, between a number and its unit."""


def count(number: int) -> str:
    """Every digit: `25,557,032`."""
    return f"{number:,}"


def brief(number: float, unit: str = "") -> str:
    """Three digits and a decimal prefix: `25.6 M`, `752 kB`."""
    prefixes = ("", "k", "M", "G", "T")
    size, step = float(number), 0
    while abs(size) >= 999.5 and step < len(prefixes) - 1:
        size, step = size / 1000, step + 1
    digits = f"{size:.0f}" if abs(size) >= 99.95 or (not step and size == int(size)) else f"{size:.3g}"
    return f"{digits}{NARROW}{prefixes[step]}{unit}".rstrip(NARROW)


def less(before: float, after: float) -> str:
    """How much less it is, in percent: `−72.9 %`."""
    if not before or before == after:
        return "unchanged"
    change = 100 * (after / before - 1)
    return f"{'−' if change < 0 else '+'}{abs(change):.1f}{NARROW}%"


def percent(part: float, whole: float) -> str:
    """A share: `27 %`, with a decimal where it would round to none or to all."""
    share = 100 * part / whole if whole else 0.0
    plain = share in (0, 100) or 1 <= share <= 99 or share > 100
    return f"{share:.0f}{NARROW}%" if plain else f"{share:.1f}{NARROW}%"


def error(size: float | None) -> str:
    """An error or a bound: `3.8e-06`; a dash where there is none."""
    return "–" if size is None else "0" if size == 0 else f"{size:.1e}"


def milliseconds(ms: float) -> str:
    """A time with as many decimals as its size deserves: `12.4 ms`, `0.0812 ms`."""
    decimals = 0 if ms >= 1000 else 1 if ms >= 100 else 2 if ms >= 1 else 4
    return f"{ms:,.{decimals}f}{NARROW}ms"


def shape(sizes: tuple[int, ...]) -> str:
    """The sizes of a tensor: `64 × 3 × 7 × 7`."""
    return " × ".join(map(str, sizes)) if sizes else "a number"


def plain(value: Any) -> str:
    """Any setting or fact, in words: lists without brackets, a dash where there is nothing."""
    if value is None or value == "" or value == ():
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{name} {plain(one)}" for name, one in value.items())
    if isinstance(value, tuple | list):
        return ", ".join(map(plain, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def words(name: str) -> str:
    """The name of a field as words: `min_pairs` is `min pairs`."""
    return name.replace("_", " ")


def tone(verdict: str) -> str:
    """The class of a verdict: good, bad, or neither."""
    return {"faster": "good", "slower": "bad", "too noisy to say": "doubt"}.get(verdict, "even")


FILTERS = (count, brief, less, percent, error, milliseconds, shape, plain, words, tone)
