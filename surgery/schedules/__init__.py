"""When how much of a net goes while it trains, and the masks that hold it: all on those of `torch.nn.utils.prune`."""

from surgery.schedules.how import How, Structured, Unstructured
from surgery.schedules.pruner import Change, Pruner
from surgery.schedules.schedule import Event, Gradual, Iterative, LotteryTicket, OneShot, Schedule
from surgery.schedules.wearing import keep_masks, rewind_, sparsify_, wear_

__all__ = [
    "Change",
    "Event",
    "Gradual",
    "How",
    "Iterative",
    "LotteryTicket",
    "OneShot",
    "Pruner",
    "Schedule",
    "Structured",
    "Unstructured",
    "keep_masks",
    "rewind_",
    "sparsify_",
    "wear_",
]
