"""The boundary to the shell: exceptions become one line and an exit code, paths go to stdout, progress to stderr."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import io
import logging
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TextIO, cast

from vistool.commands.options import Parser
from vistool.environment import anonymous_files
from vistool.errors import InputError, cause_of, log_speller
from vistool.imports import lazy_imports

if TYPE_CHECKING:
    from vistool.analyses.base import MapAnalysis
    from vistool.runs.spec import RunSpec, RunSummary

OK, SOME_FAILED, BAD_INPUT, OWN_FAULT, INTERRUPTED = 0, 1, 2, 3, 130
"""Exit codes: all done; some items of a batch failed; bad input; a fault of vistool's own; interrupted."""

_RESUMED = '; the files that are written are whole; --resume continues a run over many images'

CARRIED_OUT = (
    'out', 'resume', 'overwrite', 'gallery', 'launcher', 'local_rank', 'workers', 'log_level', 'debug', 'not_show',
    'show', 'backends', 'panels', 'trust_checkpoint', 'embedding',
)  # fmt: skip
"""Parameters that say how a run is carried out and where its files go; a deterministic run leaves them out of the
command line that it records."""

_OF_ONE_RUN = (
    'out', 'resume', 'overwrite', 'gallery', 'embedding', 'launcher', 'local_rank', 'show', 'backends', 'panels',
    'sheet', 'all_channels', 'indices', 'classes', 'per_class', 'only', 'max_samples', 'max_classes',
)  # fmt: skip
"""Parameters that a command line over other images leaves out: which images there were, and where files went."""

_KEPT = 1 << 30
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h

log = logging.getLogger('vistool')
_stdout: ContextVar[TextIO] = ContextVar('stdout')


def run(work: Callable[[argparse.Namespace], int], parser: Parser, argv: Sequence[str] | None = None) -> int:
    """Parses, works, and turns whatever is raised into one line on stderr and an exit code.

    stdout is for the paths written, through :func:`announce`; what libraries print is logged at debug level.
    """
    if '_ARGCOMPLETE' in os.environ:  # a shell asks how the command line goes on
        from vistool.commands.completion import complete

        complete(parser)
    with _streams_that_may_fail():
        return _run(work, parser, argv)


def _run(work: Callable[[argparse.Namespace], int], parser: Parser, argv: Sequence[str] | None) -> int:
    debug = '--debug' in (sys.argv if argv is None else argv)
    tune_process()
    before, log_speller.spelling = log_speller.spelling, parser.spelling
    try:
        args = parser.parse(argv)
        _require_folder()
        left_out = CARRIED_OUT if getattr(args, 'deterministic', False) else ()
        args.command = parser.command(argv, left_out)
        args.again = parser.again(argv, (*_OF_ONE_RUN, *left_out), str(getattr(args, 'images', None)))
        _set_up_logging(args.log_level, debug)
        _stdout.set(sys.stdout)
        with contextlib.redirect_stdout(_Chatter()), warnings.catch_warnings(), lazy_imports(), _uncollected():
            if not debug:
                warnings.simplefilter('ignore')
            return _work(work, args)
    except InputError as error:
        if debug:
            raise
        return _complain(error.line(parser.spelling), BAD_INPUT)
    except KeyboardInterrupt:
        resumes = '--resume' in parser._option_string_actions
        return _complain(f'interrupted{_RESUMED if resumes else ""}', INTERRUPTED)
    except Exception as error:
        if debug:
            raise
        library = _missing_library(error)
        if library:
            return _complain(library, BAD_INPUT)
        return _complain(f'{cause_of(error)}; run with --debug for the traceback', OWN_FAULT)
    finally:
        log_speller.spelling = before


def _require_folder() -> None:
    """Raises an InputError in a folder that was deleted: PyTorch's libraries end the process there when they load."""
    try:
        os.getcwd()
    except FileNotFoundError as error:
        raise InputError('the current folder does not exist any more', hint='change to another one with cd') from error


def _work(work: Callable[[argparse.Namespace], int], args: argparse.Namespace) -> int:
    """Does the work; a config's own code that exits is an error, not the command's result."""
    try:
        with anonymous_files(getattr(args, 'anonymous', False)):
            return work(args)
    except (SystemExit, GeneratorExit) as error:
        raise InputError(f'code of the config or of its imports ended the process ({cause_of(error)})') from error


@contextmanager
def _streams_that_may_fail() -> Iterator[None]:
    """Lets a command go on without a reader: a full, closed or broken stdout or stderr loses its text, nothing else."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:  # closed by the caller; else the next file opened would become stdout
            os.open(os.devnull, os.O_RDWR)
    out, err = _Lossy(sys.stdout), _Lossy(_on_its_own(sys.stderr))
    with contextlib.redirect_stdout(cast(TextIO, out)), contextlib.redirect_stderr(cast(TextIO, err)):
        try:
            yield
        finally:
            out.flush()
            err.flush()


def _on_its_own(stream: TextIO | None) -> TextIO | None:
    """Standard error with a descriptor of its own, so that what C code prints to descriptor 2 can be told from it."""
    try:
        if stream is None or stream.fileno() != 2:
            return stream
        copy = os.dup(2)
    except (OSError, ValueError):  # a stream in memory, or closed
        return stream
    return open(copy, 'w', buffering=1, encoding=stream.encoding, errors=stream.errors)


class _Lossy:
    """A stream that drops what cannot be written."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream or open(os.devnull, 'w', encoding='utf-8')  # noqa: SIM115 - as long as the process

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Writes ``text`` if that is possible; a file name that the stream's encoding lacks keeps its bytes."""
        try:
            self._attempt(lambda: self._stream.write(text))
        except UnicodeEncodeError:
            self._attempt(lambda: self._stream.buffer.write(os.fsencode(text)))
        return len(text)

    def flush(self) -> None:
        """Flushes if that is possible."""
        self._attempt(self._stream.flush)

    def _attempt(self, call: Callable[[], object]) -> None:
        try:
            call()
        except UnicodeEncodeError:
            raise
        except (OSError, ValueError):  # full, without a reader, or closed
            self._discard()

    def _discard(self) -> None:
        """Points the descriptor to the null device, so that Python has nothing to complain of at its end either."""
        with contextlib.suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._stream.fileno())
            os.close(null)


def tune_process() -> None:
    """Lets waiting threads sleep, keeps freed memory for the next layer, and lets OpenCV raise and not print.

    OpenMP's threads spin while they wait, which takes the cores from those that read and write images. And glibc hands
    a large tensor's memory back to the system as soon as it is freed, so that every layer of a network on the CPU has
    its pages mapped and cleared anew, up to half the time of a forward pass.
    """
    os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
    os.environ.setdefault('OPENCV_LOG_LEVEL', 'FATAL')
    if any(name.startswith(('MALLOC_', 'GLIBC_TUNABLES')) for name in os.environ):
        return
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None) if os.name == 'posix' else None
    if mallopt is not None:  # glibc
        mallopt(_M_MMAP_THRESHOLD, _KEPT)
        mallopt(_M_TRIM_THRESHOLD, _KEPT)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Pauses the collection of garbage until :func:`collect_garbage`.

    Imports make a million objects that stay, and the collector would look through them again and again: a sixth of the
    time that ``import torch`` takes.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        if enabled:
            gc.enable()


def collect_garbage() -> None:
    """Collects garbage from now on, of all that is made from now on."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()


def execute(spec: RunSpec, fitted: Callable[[MapAnalysis], None] | None = None) -> int:
    """Carries out a run, with its paths on stdout and a progress bar on stderr.

    Args:
        spec: The run.
        fitted: Called with the analysis once it knows what it has to know over all images.

    Returns:
        The exit code.
    """
    from vistool.runs import run

    with progress_bar() as progress:
        callbacks = run.Callbacks(written=announce, progress=progress)
        return exit_code(run.execute(spec, replace(callbacks, fitted=fitted) if fitted else callbacks))


def exit_code(summary: RunSummary) -> int:
    """The exit code of a run."""
    return SOME_FAILED if summary.failures else OK


def announce(lines: Iterable[object]) -> None:
    """Prints the paths written (or a listing asked for) to the process's own stdout, one a line."""
    stdout = _stdout.get(sys.stdout)
    for line in lines:
        stdout.write(f'{line}\n')  # in one piece: several processes may share a pipe
        stdout.flush()


@contextmanager
def progress_bar() -> Iterator[Callable[[int, int], None]]:
    """One progress bar on stderr, for several items on a terminal; yields what moves it: ``(finished, total)``."""
    with contextlib.ExitStack() as stack:
        show: Callable[[int], object] | None = None

        def progress(finished: int, total: int) -> None:
            nonlocal show
            if finished:
                collect_garbage()
            if show is None:
                show = stack.enter_context(_bar(total)) if total > 1 and sys.stderr.isatty() else lambda finished: None
            show(finished)

        yield progress


@contextmanager
def _bar(total: int) -> Iterator[Callable[[int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn('images'), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task('', total=total)
        yield lambda finished: bar.update(task, completed=finished)


def _complain(message: str, code: int) -> int:
    print(f'error: {message}', file=sys.stderr)
    return code


def _set_up_logging(level: str, debug: bool) -> None:
    levels = ('debug', 'info', 'warning', 'error')
    if level.lower() not in levels:
        raise InputError(f'unknown level {level!r}', accepted=', '.join(levels), parameter='log_level')
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine())
    handler.addFilter(_Once())
    log.handlers[:] = [handler]
    log.propagate = False
    log.setLevel('DEBUG' if debug else level.upper())


class _Chatter(io.TextIOBase):
    def write(self, text: str) -> int:
        if text.strip():
            log.debug('%s', text)
        return len(text)


class _Once(logging.Filter):
    """Passes each message once: what holds for a run need not be said for every image."""

    def __init__(self) -> None:
        super().__init__()
        self._said: set[tuple[int, str]] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        key = (record.levelno, record.getMessage())
        new = key not in self._said or not logging.DEBUG < record.levelno < logging.ERROR
        self._said.add(key)
        return new


class _OneLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        if getattr(record, 'table', False):  # its columns are aligned
            return record.getMessage()
        message = ' '.join(record.getMessage().split())
        return message if record.levelno <= logging.INFO else f'{record.levelname.lower()}: {message}'


def _missing_library(error: Exception) -> str:
    """One line for a cv2 that cannot find the system's libraries."""
    if isinstance(error, ImportError) and re.search(r'lib(GL|glib|gthread|xcb|SM|Xext)[\w.-]*\.so', str(error)):
        return (
            f'OpenCV cannot be imported ({error}); it needs system libraries: '
            'apt-get install libgl1 libglib2.0-0 libxcb1'
        )
    return ''
