"""The command line: one module per command, the options they share, and the boundary to the shell.

A command declares its options and translates them into typed objects; nothing below it knows argparse. Modules here
import nothing heavy at the top: ``--help`` answers at once, and arguments are checked before torch is loaded.
"""

from __future__ import annotations

import sys
from types import TracebackType


def _say_interrupted(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """One line in place of a traceback for an interrupt that comes before a command can catch it."""
    if issubclass(kind, KeyboardInterrupt):
        sys.stderr.write('error: interrupted\n')
    else:
        _show_traceback(kind, error, trace)


_show_traceback = sys.excepthook
sys.excepthook = _say_interrupted
