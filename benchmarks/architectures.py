"""Every architecture of the zoo in one list: `ARCHITECTURES["Llama"].make()`, `.inputs()`, `.inputs(B=3, T=17)`."""

from __future__ import annotations

from types import MappingProxyType

from benchmarks.architecture import Architecture, Floats
from benchmarks.families import FAMILIES, Family
from benchmarks.image_nets import IMAGE_NETS
from benchmarks.language_nets import LANGUAGE_NETS
from benchmarks.vision_nets import VISION_NETS


def convolutional(family: Family) -> Architecture:
    """A family of convolutional nets as an architecture: dims from 1 on of an input grow, each by itself."""
    letters = tuple(f"D{dim}" for dim in range(1, len(family.shape)))
    sizes = dict(zip(letters, family.shape[1:], strict=True))
    larger = {letter: size + family.grow for letter, size in sizes.items()}
    return Architecture(
        name=family.name,
        net=family.net,
        build=family.make,
        takes={"": Floats(("B", family.shape[0], *letters))},
        sizes={"B": 2, **sizes},
        others=({"B": 1}, {"B": 3, **larger}),
        stays=family.stays,
        refused=family.refused,
    )


LISTED = (*(convolutional(family) for family in FAMILIES), *IMAGE_NETS, *LANGUAGE_NETS, *VISION_NETS)
ARCHITECTURES = MappingProxyType({architecture.name: architecture for architecture in LISTED})
