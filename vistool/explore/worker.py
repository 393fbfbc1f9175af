"""One thread for all model work, and a queue in which a newer request replaces an older one of the same view."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any


class Superseded(Exception):
    """A newer request of the same view took the place of this one before it began."""


class Stopped(Exception):
    """The worker takes no more work."""


@dataclass(eq=False)
class Job:
    """A piece of work.

    Attributes:
        work: What is to be done.
        about: What a page may be told of it.
        future: Gets what the work returns or raises.
        started: When it began, by :func:`time.perf_counter`; None while it waits.
    """

    work: Callable[[], Any]
    about: Mapping[str, Any] = field(default_factory=dict)
    future: Future[Any] = field(default_factory=Future)
    started: float | None = None


class Worker:
    """A thread that does one job after another."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[Hashable, Job] = OrderedDict()
        self._changed = threading.Condition()
        self._current: Job | None = None
        self._stopped = False
        # A daemon: a forward cannot be interrupted, and the process may end without its result.
        self._thread = threading.Thread(target=self._run, name='models', daemon=True)
        self._thread.start()

    def submit(self, key: Hashable, work: Callable[[], Any], about: Mapping[str, Any]) -> Job:
        """Puts work into the queue; in the place of one that waits under the same key, whose request is superseded.

        Args:
            key: What the work is for; None: nothing is replaced.
            work: What is to be done.
            about: What a page may be told of it.

        Raises:
            Stopped: The worker takes no more work.
        """
        job = Job(work, about)
        key = job if key is None else key
        with self._changed:
            if self._stopped:
                raise Stopped
            older = self._waiting.get(key)
            self._waiting[key] = job  # in the place of the older, so that a drag does not lose its turn
            self._changed.notify()
        if older is not None and older.future.set_running_or_notify_cancel():
            older.future.set_exception(Superseded())
        return job

    def cancel(self, job: Job) -> None:
        """Drops a job that waits; one that runs is finished for nobody."""
        with self._changed:
            for key, each in self._waiting.items():
                if each is job:
                    del self._waiting[key]
                    break
        job.future.cancel()

    def busy(self) -> dict[str, Any] | None:
        """What is being done, for how long, and how much waits; None where nothing is."""
        with self._changed:
            job, waiting = self._current, len(self._waiting)
        if job is None or job.started is None:
            return None
        return {**job.about, 'seconds': round(time.perf_counter() - job.started, 3), 'waiting': waiting}

    def stop(self, seconds: float) -> bool:
        """Takes no more work, drops what waits, and waits for what runs.

        Args:
            seconds: How long it waits at most.

        Returns:
            Whether the thread has ended.
        """
        with self._changed:
            self._stopped = True
            dropped = list(self._waiting.values())
            self._waiting.clear()
            self._changed.notify()
        for job in dropped:
            job.future.cancel()
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._stopped)
                if self._stopped:
                    return
                _, job = self._waiting.popitem(last=False)
                job.started, self._current = time.perf_counter(), job
            if job.future.set_running_or_notify_cancel():
                self._do(job)
            else:
                self._finished()

    def _do(self, job: Job) -> None:
        try:
            result = job.work()
        except BaseException as error:  # whoever asked is told; the thread goes on
            self._finished()
            job.future.set_exception(error)
        else:
            self._finished()
            job.future.set_result(result)

    def _finished(self) -> None:
        """Before anybody is told, so that whoever has an answer does not find the worker busy with it."""
        with self._changed:
            self._current = None
