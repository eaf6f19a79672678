"""What training keeps beside the model, cut by the model's plan: the optimizer's state and averaged copies."""

from surgery.training.averages import cut_ema_, cut_ema_state
from surgery.training.optimizers import cut_optimizer_, cut_optimizer_state

__all__ = ["cut_ema_", "cut_ema_state", "cut_optimizer_", "cut_optimizer_state"]
