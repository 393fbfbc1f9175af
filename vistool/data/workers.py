"""Work distributed over processes, with the results in order."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

Job = TypeVar('Job')
Done = TypeVar('Done')


class _Jobs:
    """Jobs as a map-style dataset: its items are the results."""

    def __init__(self, function: Callable[[Any], Any], jobs: Sequence[Any]) -> None:
        self.function, self.jobs = function, jobs

    def __len__(self) -> int:
        return len(self.jobs)

    def __getitem__(self, place: int) -> Any:
        return self.function(self.jobs[place])


def ordered_map(function: Callable[[Job], Done], jobs: Sequence[Job], workers: int = 0) -> Iterator[Done]:
    """Applies ``function`` to each job and yields the results in the order of the jobs.

    Args:
        function: Must depend on its job alone, so that the number of workers changes nothing but the time.
        jobs: What to do.
        workers: Processes beside this one; with 0, the work is done here.
    """
    if not workers:
        yield from map(function, jobs)
        return
    from torch.utils.data import DataLoader

    yield from DataLoader(
        _Jobs(function, jobs),  # type: ignore[arg-type]  # a map-style dataset by its methods
        batch_size=None,
        num_workers=workers,
        collate_fn=_unchanged,
        worker_init_fn=_start,
        prefetch_factor=2,
    )


def _unchanged(result: Any) -> Any:
    return result


def _start(worker: int) -> None:
    """The main process handles Ctrl-C and stops its workers; OpenCV's threads would compete for the cores."""
    import cv2

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(0)
