"""Many images through one analysis: a pool reads them, the calling thread explains them in batches, a pool writes."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

from vistool.errors import InputError, counted, param

if TYPE_CHECKING:
    from vistool.data.samples import Sample

T = TypeVar('T')
R = TypeVar('R')
W = TypeVar('W')
log = logging.getLogger('vistool')


@dataclass(frozen=True)
class Read:
    """An image that was read.

    Attributes:
        index: Position of its item.
        views: The image as each model reads it.
        seconds: What reading took.
    """

    index: int
    views: tuple[Sample, ...]
    seconds: float

    @property
    def sample(self) -> Sample:
        """The image as the first model reads it."""
        return self.views[0]


@dataclass
class Clock:
    """Where the time of the thread that drives a run goes; reading and writing count while it waits for them.

    Attributes:
        images: How many were explained.
        seconds: Seconds by part: ``decode``, ``forward``, ``write``.
        started: When the run began, in seconds of :func:`time.perf_counter`.
    """

    images: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: {'decode': 0.0, 'forward': 0.0, 'write': 0.0})
    started: float = field(default_factory=time.perf_counter)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Adds the time spent inside to a part."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - start


def throughput(clocks: Sequence[Clock]) -> str:
    """One line on a run: images per second over all processes, and where their time went.

    Args:
        clocks: One per process.
    """
    images = sum(clock.images for clock in clocks)
    elapsed = max(time.perf_counter() - clocks[0].started, 1e-9)
    parts = {name: sum(clock.seconds[name] for clock in clocks) for name in clocks[0].seconds}
    total = max(sum(parts.values()), 1e-9)
    shares = ', '.join(f'{name} {share / total:.0%}' for name, share in parts.items())
    return f'{counted(images, "image")} in {elapsed:.1f} s: {images / elapsed:.1f} images/s ({shares} of the time)'


@dataclass
class Batches(Generic[T, R, W]):
    """One pass over many items.

    Attributes:
        read: ``(index, item) → the image as each model reads it``; runs in a pool. An
            :class:`~vistool.errors.InputError` skips the item.
        explain: ``views[model][image]`` of one network-input size → one result per image; runs in the calling thread.
        write: ``(result, sample, seconds spent so far) → what was written``; runs in a pool.
        batch_size: Images per call of ``explain``; halved where the memory does not suffice.
        workers: Threads of each pool.
        clock: Where the time goes.
        canceled: Asked before each batch; once it says so, no further images are explained.
    """

    read: Callable[[int, T], tuple[Sample, ...]]
    explain: Callable[[list[list[Sample]]], Sequence[R]]
    write: Callable[[R, Sample, float], W]
    batch_size: int = 1
    workers: int = 2
    clock: Clock = field(default_factory=Clock)
    canceled: Callable[[], bool] = lambda: False

    def run(
        self,
        items: Sequence[T],
        done: Callable[[W | None], None],
        failed: Callable[[int, T, InputError], None],
        groups: Sequence[Sequence[int]] | None = None,
        unwanted: Collection[int] = (),
    ) -> None:
        """Reads, explains and writes items.

        Args:
            items: What ``read`` takes.
            done: Called with what ``write`` returned for each item, in order, in the calling thread; with None for an
                unwanted one.
            failed: Called with the position, the item and the reason for each that cannot be read or explained.
            groups: Positions of the items to take; no batch spans two groups. Default: all, in one.
            unwanted: Positions that are read and explained, so that batches are always the same, but not written.

        Raises:
            InputError: If the only item cannot be read, no image can be explained, or a file cannot be written.
        """
        groups = [range(len(items))] if groups is None else groups
        total = sum(map(len, groups))

        def fail(index: int, error: InputError) -> None:
            if total == 1:
                raise error
            failed(index, items[index], error)

        def settle(left: int) -> None:
            while len(pending) > left:  # memory stays flat
                with self.clock.part('write'):
                    written = pending.popleft().result()
                done(written)

        pending: deque[Future[W]] = deque()
        with (
            ThreadPoolExecutor(self.workers, 'read') as readers,
            ThreadPoolExecutor(self.workers, 'write') as writers,
        ):
            try:
                for batch in self._batches(items, groups, readers, fail):
                    if self.canceled():
                        readers.shutdown(cancel_futures=True)
                        break
                    for each, result, seconds in self._explained(batch, fail):
                        if each.index in unwanted:
                            done(None)
                        else:
                            pending.append(writers.submit(self.write, result, each.sample, seconds))
                    settle(2 * self.batch_size + self.workers)
                settle(0)
            except BaseException:
                for future in pending:
                    future.cancel()
                readers.shutdown(cancel_futures=True)
                raise

    def walk(self, items: Sequence[T], groups: Sequence[Sequence[int]] | None = None) -> Iterator[list[list[Sample]]]:
        """The batches that :meth:`run` will see, as ``views[model][image]``; unreadable images are left out."""
        groups = [range(len(items))] if groups is None else groups
        with ThreadPoolExecutor(self.workers, 'read') as readers:
            for batch in self._batches(items, groups, readers, lambda index, error: None):
                yield _views(batch)

    def _batches(
        self,
        items: Sequence[T],
        groups: Sequence[Sequence[int]],
        readers: ThreadPoolExecutor,
        fail: Callable[[int, InputError], None],
    ) -> Iterator[list[Read]]:
        """Consecutive images of one group and one input size, at most ``batch_size`` of them."""
        positions = ((number, index) for number, group in enumerate(groups) for index in group)
        batch: list[Read] = []
        current = 0
        for number, index, future in self._prefetched(items, positions, readers):
            try:
                with self.clock.part('decode'):
                    found = future.result()
            except InputError as error:
                fail(index, error)
                continue
            other = bool(batch) and found.sample.image.shape != batch[0].sample.image.shape
            if batch and (number != current or other or len(batch) >= self.batch_size):
                yield batch
                batch = []
            batch.append(found)
            current = number
        if batch:
            yield batch

    def _prefetched(
        self, items: Sequence[T], positions: Iterable[tuple[int, int]], readers: ThreadPoolExecutor
    ) -> Iterator[tuple[int, int, Future[Read]]]:
        """Group and position with the read under way, a bounded number at a time, in order."""

        def timed(index: int) -> Read:
            start = time.perf_counter()
            views = self.read(index, items[index])
            return Read(index, views, time.perf_counter() - start)

        waiting: deque[tuple[int, int, Future[Read]]] = deque()
        for number, index in positions:
            waiting.append((number, index, readers.submit(timed, index)))
            if len(waiting) > 2 * self.batch_size + self.workers:
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()

    def _explained(self, batch: list[Read], fail: Callable[[int, InputError], None]) -> Iterator[tuple[Read, R, float]]:
        """Results with the seconds spent on each; if a batch cannot be explained, its images are tried one by one."""
        if len(batch) > self.batch_size:  # it was made before the memory ran out
            while batch:
                part = batch[: self.batch_size]
                yield from self._explained(part, fail)
                batch = batch[len(part) :]
            return
        start_time = time.perf_counter()
        try:
            with self.clock.part('forward'):
                results = list(self.explain(_views(batch)))
        except InputError as error:
            yield from self._one_by_one(batch, fail, error)
            return
        except RuntimeError as error:
            if not _out_of_memory(error):
                raise
            results = None
        if results is None:
            self._halve(len(batch))
            yield from self._explained(batch, fail)
            return
        self.clock.images += len(batch)
        share = (time.perf_counter() - start_time) / len(batch)
        for each, result in zip(batch, results, strict=True):
            yield each, result, each.seconds + share

    def _one_by_one(
        self, batch: list[Read], fail: Callable[[int, InputError], None], error: InputError
    ) -> Iterator[tuple[Read, R, float]]:
        """Images that fail are reported; if every image of the first batch fails, the parameters are at fault."""
        refused = [(batch[0].index, error)] if len(batch) == 1 else []
        for each in batch if len(batch) > 1 else []:
            try:
                with self.clock.part('forward'):
                    (result,) = self.explain(_views([each]))
            except InputError as reason:
                refused.append((each.index, reason))
                continue
            self.clock.images += 1
            yield each, result, each.seconds
        if not self.clock.images:
            raise error
        for index, why in refused:
            fail(index, why)

    def _halve(self, size: int) -> None:
        """Smaller batches from here on; called outside the handler, whose traceback would keep the memory."""
        if size == 1:
            raise InputError(
                'there is not enough memory for one image',
                hint=f'use a smaller input, {param("amp")}, fewer methods or classes, or another device',
                parameter='device',
            )
        self.batch_size = size // 2
        log.warning('out of memory with %s: using batches of %d from here on', counted(size, 'image'), self.batch_size)
        import torch

        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _views(batch: Sequence[Read]) -> list[list[Sample]]:
    return [list(samples) for samples in zip(*(each.views for each in batch), strict=True)]


def _out_of_memory(error: RuntimeError) -> bool:
    import torch

    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
