"""Model surgery: remove what is dead in a trained network, exactly, and prove it."""

from surgery.analyses import Analysis, analyze
from surgery.choosing import choose
from surgery.inputs import Inputs
from surgery.plans import Plan
from surgery.proof.prove import Proof, verify
from surgery.results import Result
from surgery.shrinking import shrink
from surgery.version import __version__

__all__ = [
    "Analysis",
    "Inputs",
    "Plan",
    "Proof",
    "Result",
    "__version__",
    "analyze",
    "choose",
    "shrink",
    "verify",
]
