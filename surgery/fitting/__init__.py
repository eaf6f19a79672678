"""Training, on one process or many, on Hugging Face Accelerate: `surgery.fit`.

Reading order: `settings`, `feeding` (which samples a process gets, in which order), `engine` (the model under
Accelerate), `loop`, `keeping` and `resuming` (checkpoints), `door`.
"""

from surgery.fitting.door import fit
from surgery.fitting.result import Epoch, Fitted

__all__ = ["Epoch", "Fitted", "fit"]
