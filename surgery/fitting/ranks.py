"""The processes that train together: what one decides, all know; where one fails, all say so."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any, TypeVar

import torch

from surgery.errors import InputError, SurgeryError, first_line

T = TypeVar("T")

FAILED = "surgery.fit: failed"

LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "has been aborted", "remote process")
"""What backends say when another process is gone."""


class Ranks:
    """The processes of a run (mutable: `agreed` says whether all of them know of the failure that is being raised)."""

    def __init__(self, accelerator: Any) -> None:
        self.accelerator = accelerator
        self.count: int = accelerator.num_processes
        self.rank: int = accelerator.process_index
        self.main: bool = accelerator.is_main_process
        self.agreed = False

    def together(self, work: Callable[[], T]) -> T:
        """What every process does for itself; where one fails, all raise.

        Raises:
            InputError: Another process failed; here, what the work itself raises.
        """
        if self.count == 1:
            return work()
        value, failed = None, None
        try:
            value = work()
        except Exception as error:
            failed = error
        told = self._gathered(None if failed is None else _told(failed))
        self._raise_first(told, failed)
        return value  # type: ignore[return-value]

    def by_main(self, work: Callable[[], T]) -> T:
        """What the main process alone does; all get what it returns (of plain values), or raise.

        Raises:
            InputError: It failed.
        """
        if self.count == 1:
            return work()
        from accelerate.utils import broadcast_object_list

        value, failed = None, None
        if self.main:
            try:
                value = work()
            except Exception as error:
                failed = error
        box: list[Any] = [value, None if failed is None else _told(failed)]
        broadcast_object_list(box, from_process=0)
        self._raise_first([box[1]], failed)
        shared: T = box[0]
        return shared

    def same(self, value: str) -> bool:
        """Whether the value is the same everywhere."""
        return self.count == 1 or len(set(self._gathered(value))) == 1

    def total(self, number: torch.Tensor) -> torch.Tensor:
        """The sum over all processes."""
        if self.count == 1:
            return number
        summed: torch.Tensor = self.accelerator.reduce(number, reduction="sum")
        return summed

    def leave(self, error: BaseException) -> None:
        """Tell the others what failed here, and let go of them, so that none waits for what will not come.

        Raises:
            SurgeryError: It was another process that failed; with what that one said, where it could say it.
        """
        if self.count == 1 or self.agreed or not torch.distributed.is_initialized():
            return
        store = _store()
        if is_lost(error):
            raise SurgeryError(*_note(store)) from error
        if store is not None:
            fact, way_out = _told(error)
            store.set(FAILED, f"process {self.rank} of {self.count} failed: {fact}\n{way_out}")
        torch.distributed.destroy_process_group()

    def _gathered(self, value: Any) -> list[Any]:
        from accelerate.utils import gather_object

        return list(gather_object([value]))

    def _raise_first(self, told: list[tuple[str, str] | None], own: Exception | None) -> None:
        """Raise, on every process, where one failed."""
        failed = [(rank, said) for rank, said in enumerate(told) if said is not None]
        if not failed:
            return
        self.agreed = True
        if own is not None:
            raise own
        rank, (fact, way_out) = failed[0]
        raise InputError(f"process {rank} of {self.count} failed: {fact}", way_out)


def _store() -> Any:
    """The store that the processes found each other by; None where torch has none."""
    try:
        from torch.distributed.distributed_c10d import _get_default_store

        return _get_default_store()
    except (ImportError, ValueError):
        return None


def _note(store: Any) -> tuple[str, str]:
    """What the process that failed first left to say."""
    try:
        store.wait([FAILED], datetime.timedelta(seconds=5))
        fact, _, way_out = store.get(FAILED).decode().partition("\n")
    except Exception:  # it was killed, and the store may be gone with it
        return "another process ended while this one waited for it", "see what that one says: it failed first"
    return fact, way_out


def _told(error: BaseException) -> tuple[str, str]:
    return (error.fact, error.way_out) if isinstance(error, SurgeryError) else (first_line(error), "")


def is_lost(error: BaseException) -> bool:
    """Whether what failed is the connection to another process."""
    chain: BaseException | None = error
    while chain is not None:
        if isinstance(chain, RuntimeError) and any(said in str(chain) for said in LOST):
            return True
        chain = chain.__cause__
    return False
