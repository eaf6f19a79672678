"""Import this before torchvision, timm or transformers' image models where torch was built without CUDA.

The torchvision wheel on PyPI is built for CUDA: beside a CPU torch its C++ half cannot be loaded, and its Python half
fails on import because it registers fakes for two operators that nobody declared. Declared here, models, transforms and
datasets work; `torchvision.ops.nms` still raises its own error when it is called.
"""

from __future__ import annotations

import torch

SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
"""The operators that torchvision registers fakes for."""


def declare() -> torch.library.Library | None:
    """Declare the operators that are missing; None where this torch has CUDA, and so nothing is missing.

    The declarations live as long as the returned object does.
    """
    if torch.version.cuda is not None:
        return None
    library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in SCHEMAS:
        if not hasattr(torch.ops.torchvision, schema.partition("(")[0]):
            library.define(schema)
    return library


DECLARED = declare()
