"""Many images through one analysis: read by a pool, batched through the network, drawn and written by a pool."""

from __future__ import annotations

import logging
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from vistool.errors import InputError

if TYPE_CHECKING:
    from vistool.inputs import Sample
    from vistool.results import Result

T = TypeVar('T')
log = logging.getLogger('vistool')


@dataclass(frozen=True)
class Failure:
    """An item that could not be read, and why."""

    item: str
    reason: str


@dataclass
class Batches(Generic[T]):
    """One pass over many items.

    Attributes:
        read: ``(index, item) → sample``; runs in a pool. An :class:`~vistool.errors.InputError` skips the item.
        explain: Samples of one network-input size → one result each; runs in the calling thread.
        write: ``(result, sample) → files written``; runs in a pool.
        batch_size: Images per call of ``explain``.
        workers: Threads of each pool.
    """

    read: Callable[[int, T], Sample]
    explain: Callable[[list[Sample]], Sequence[Result]]
    write: Callable[[Result, Sample], list[Path]]
    batch_size: int = 1
    workers: int = 2

    def run(self, items: Sequence[T], announce: Callable[[Sequence[Path]], None]) -> list[Failure]:
        """Reads, explains and writes all items.

        Args:
            items: What ``read`` takes; its ``path`` or ``name`` names it in messages.
            announce: Called with the files of each item, in order.

        Returns:
            The items that could not be read. A single item that cannot be read is an error instead.

        Raises:
            InputError: If the only item cannot be read, or an explanation or a file cannot be made.
        """
        failures: list[Failure] = []
        with (
            ThreadPoolExecutor(self.workers, 'read') as readers,
            ThreadPoolExecutor(self.workers, 'write') as writers,
            progress(len(items)) as advance,
        ):
            pending: deque[Future[list[Path]]] = deque()
            try:
                for samples in self._batches(items, readers, failures, advance):
                    for result, sample in zip(self.explain(samples), samples, strict=True):
                        pending.append(writers.submit(self.write, result, sample))
                    while len(pending) > 2 * self.batch_size + self.workers:  # memory stays flat
                        announce(pending.popleft().result())
                        advance()
                while pending:
                    announce(pending.popleft().result())
                    advance()
            except BaseException:
                for future in pending:
                    future.cancel()
                readers.shutdown(cancel_futures=True)
                raise
        return failures

    def walk(self, items: Sequence[T]) -> Iterator[list[Sample]]:
        """The batches that :meth:`run` will see, for what looks at all images first; unreadable ones are left out."""
        with ThreadPoolExecutor(self.workers, 'read') as readers:
            yield from self._batches(items, readers, [], lambda: None)

    def _batches(
        self,
        items: Sequence[T],
        readers: ThreadPoolExecutor,
        failures: list[Failure],
        advance: Callable[[], None],
    ) -> Iterator[list[Sample]]:
        """Consecutive samples of one input size, at most ``batch_size`` of them."""
        batch: list[Sample] = []
        for item, future in _prefetched(self.read, items, readers, 2 * self.batch_size + self.workers):
            try:
                sample = future.result()
            except InputError as error:
                if len(items) == 1:
                    raise
                failures.append(Failure(_described(item), str(error)))
                advance()
                continue
            if batch and (len(batch) == self.batch_size or sample.image.shape != batch[0].image.shape):
                yield batch
                batch = []
            batch.append(sample)
        if batch:
            yield batch


def _described(item: object) -> str:
    return str(getattr(item, 'path', None) or getattr(item, 'name', item))


def report(failures: Sequence[Failure], total: int) -> int:
    """Tells on stderr what failed; returns the exit code (0: nothing, 1: some)."""
    for failure in failures:
        log.error('%s: %s', failure.item, failure.reason)
    if failures:
        log.error('%d of %d images failed; the others are written', len(failures), total)
    return 1 if failures else 0


@contextmanager
def progress(total: int) -> Iterator[Callable[[], None]]:
    """One progress bar on stderr, for several items on a terminal; yields what moves it one step on."""
    if total < 2 or not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn('images'), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task('', total=total)
        yield lambda: bar.advance(task)


def _prefetched(
    read: Callable[[int, T], Sample], items: Iterable[T], readers: ThreadPoolExecutor, ahead: int
) -> Iterator[tuple[T, Future[Sample]]]:
    """Items with their reads under way, at most ``ahead`` at a time, in order."""
    waiting: deque[tuple[T, Future[Sample]]] = deque()
    for index, item in enumerate(items):
        waiting.append((item, readers.submit(read, index, item)))
        if len(waiting) > ahead:
            yield waiting.popleft()
    while waiting:
        yield waiting.popleft()
