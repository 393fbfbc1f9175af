"""The server of vis_explore in a process of its own, as a user starts it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class Server:
    """A running server.

    Args:
        arguments: Words of the command line.
        program: What Python runs.

    Attributes:
        url: The address of its page, with the token.
        process: The process.
    """

    def __init__(self, *arguments, program=('-m', 'vistool.commands.vis_explore')):
        command = [sys.executable, *program, *map(str, arguments), '--no-browser']
        environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'PYTHONUNBUFFERED': '1'}
        self.log = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the server)
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=self.log, text=True
        )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        assert self.url.startswith('http://127.0.0.1:'), self.said()

    def said(self):
        """What it wrote to stderr."""
        self.log.seek(0)
        return self.log.read().decode(errors='replace')

    def memory(self):
        """Its resident memory in MB."""
        status = Path(f'/proc/{self.process.pid}/status').read_text()
        return int(status.split('VmRSS:')[1].split()[0]) / 1024

    def cpu(self):
        """The CPU time that it took, in seconds."""
        fields = Path(f'/proc/{self.process.pid}/stat').read_text().rpartition(')')[2].split()
        return sum(map(int, fields[11:13])) / os.sysconf('SC_CLK_TCK')

    def stop(self):
        """Presses Ctrl-C; returns the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(20)
        finally:
            self.process.kill()
            self.process.stdout.close()
            self.log.close()


@contextmanager
def served(*arguments, **options):
    """A server that ends with the block."""
    server = Server(*arguments, **options)
    try:
        yield server
    finally:
        server.stop()
