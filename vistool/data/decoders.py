"""What C decoders print to the process's standard error: libtiff, libpng and libjpeg report damaged files there."""

from __future__ import annotations

import logging
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

log = logging.getLogger('vistool')

_STDERR = 2
_MOST_NAMES = 3
_LONGEST = 1 << 16


class _Caught:
    """The descriptor of standard error while files are decoded, by one thread or several.

    It belongs to the whole process: the first thread that decodes redirects it and the last one puts it back.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._names: list[str] = []
        self._decoding, self._failed = 0, 0
        self._file: IO[bytes] | None = None
        self._saved = -1

    def start(self, name: str) -> None:
        with self._lock:
            if not self._decoding:
                with suppress(OSError):  # no standard error, or no room for a file: nothing is caught
                    self._redirect()
            self._decoding += 1
            self._names.append(name)

    def end(self, failed: bool) -> tuple[list[str], str]:
        """The files that were decoded and what was printed meanwhile; nothing while others are decoded still."""
        with self._lock:
            self._decoding -= 1
            self._failed += failed
            if self._decoding:
                return [], ''
            names, text = self._names, self._restored()
            if self._failed == len(names):  # their errors say it
                text = ''
            self._names, self._failed = [], 0
        return names, text

    def _redirect(self) -> None:
        file = tempfile.TemporaryFile()  # noqa: SIM115 - closed when the last thread is done
        try:
            self._saved = os.dup(_STDERR)
            os.dup2(file.fileno(), _STDERR)
        except OSError:
            file.close()
            raise
        self._file = file

    def _restored(self) -> str:
        if self._file is None:
            return ''
        os.dup2(self._saved, _STDERR)
        os.close(self._saved)
        with self._file as file:
            self._file = None
            file.seek(0)
            return file.read(_LONGEST).decode(errors='replace')


_caught = _Caught()


@contextmanager
def decoding(name: str) -> Iterator[None]:
    """Turns what a decoder prints of a damaged file into one warning that names it; an error says it alone.

    Python's own ``sys.stderr`` should not write to descriptor 2 meanwhile; the commands give it one of its own.

    Args:
        name: The file, as messages call it.
    """
    _caught.start(name)
    failed = True
    try:
        yield
        failed = False
    finally:
        names, text = _caught.end(failed)
        lines = list(dict.fromkeys(line for line in map(str.strip, text.splitlines()) if line))
        if lines:
            more = f' (and {len(lines) - 1} more)' if len(lines) > 1 else ''
            which = ' or '.join(names) if len(names) <= _MOST_NAMES else f'{names[0]} or another of {len(names)} files'
            log.warning('%s is damaged, but could be decoded: %s%s', which, lines[0].rstrip('.'), more)
