"""Command lines drawn at random from the parsers end in an exit code of the contract, with one line that says why.

``VISTOOL_FUZZ=3000 VISTOOL_FUZZ_SEED=7 pytest -m slow tests/commands/test_option_fuzz.py`` draws more and others.
"""

import contextlib
import io
import os
import random
import re
import shlex
import shutil
import signal
from pathlib import Path

import cv2
import pytest
from command_lines import COMMANDS, command_line, names_of, snapshot

LINES = int(os.environ.get('VISTOOL_FUZZ', '300'))
SEED = int(os.environ.get('VISTOOL_FUZZ_SEED', '1'))
SECONDS = 120
PIECES = 4


class TookTooLong(BaseException):
    """A command line that does not end."""


@contextlib.contextmanager
def limited(seconds):
    def stop(*_):
        raise TookTooLong

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def outcome(name, words):
    """Exit code, stdout, stderr; an exception that gets out is the exit code."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            with limited(SECONDS):
                code = COMMANDS[name].main(words)
        except TookTooLong:
            code = f'more than {SECONDS} s'
        except BaseException as error:
            code = f'{type(error).__name__}: {error}'
    return code, out.getvalue(), err.getvalue()


def faults(name, words, folder):
    """What is wrong with how a command line ended."""
    before = snapshot(folder)
    code, out, err = outcome(name, words)
    new = {path for path, size in snapshot(folder).items() if before.get(path) != size}
    if code not in (0, 1, 2):
        yield f'exit code {code}: {err[-600:]}'
        return
    if 'Traceback' in err:
        yield f'a traceback: {err[-600:]}'
    errors = [line for line in err.splitlines() if line.startswith('error: ')]
    if code == 2:
        if len(errors) != 1:
            yield f'{len(errors)} errors: {errors}'
        known = '|'.join(map(re.escape, sorted(names_of(COMMANDS[name].build_parser()), key=len, reverse=True)))
        if errors and not re.search(rf'(?<![\w-])({known})(?![\w-])', errors[0]):
            yield f'no argument named: {errors[0]}'
        if new:
            yield f'refused, and yet {sorted(new)[:4]} written: {err[-300:]}'
    elif (code == 1) != bool(errors):
        yield f'exit code {code} with errors {errors}'
    if '--preview-model' not in words and '--preview_model' not in words:
        absent = [line for line in out.splitlines() if not (folder / line).exists()]
        if absent:
            yield f'stdout holds no path: {absent[:3]}'
    for path in sorted(new):
        if path.endswith('.tmp'):
            yield f'half written: {path}'
        elif Path(path).suffix in ('.png', '.jpg', '.webp') and cv2.imread(str(folder / path)) is None:
            yield f'cannot be read: {path}'


@pytest.mark.slow
@pytest.mark.parametrize('piece', range(PIECES))
@pytest.mark.parametrize('name', list(COMMANDS))
def test_command_lines_end_as_the_contract_says(name, piece, furnished, tmp_path, monkeypatch):
    rng = random.Random(f'{SEED} {name} {piece}')
    found = []
    for _ in range(-(-LINES // (PIECES * len(COMMANDS)))):
        words = command_line(rng, name)
        folder = tmp_path / 'here'
        shutil.copytree(furnished, folder, symlinks=True)
        monkeypatch.chdir(folder)
        for fault in faults(name, words, folder):
            found.append(f'{name} {shlex.join(words)}\n    {fault}')
            print(found[-1], flush=True)  # seen at once with -s
        monkeypatch.chdir(tmp_path)
        shutil.rmtree(folder)
    assert not found, '\n'.join(found)
