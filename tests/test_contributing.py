"""CONTRIBUTING.md, followed to the letter in a copy of the package: its files are made and its commands run."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
_STEP = re.compile(r'<!-- (append|insert|file|run)(?:: ([\w./]+))?(?: after: (.*?))? -->\n```\w+\n(.*?)```', re.DOTALL)


# Runs each command as ``python FILE …`` would, all in one fresh process: starting one takes seconds.
_DRIVER = """
import contextlib, io, json, runpy, shlex, sys
printed = {}
for command in json.load(sys.stdin):
    program, sys.argv = shlex.split(command)[0], shlex.split(command)[1:]
    assert program == 'python'
    with contextlib.redirect_stdout(io.StringIO()) as out:
        try:
            runpy.run_path(sys.argv[0], run_name='__main__')
        except SystemExit as end:
            assert not end.code, command
    printed[command] = out.getvalue().splitlines()
json.dump(printed, sys.stdout)
"""


@pytest.fixture(scope='module')
def followed(tmp_path_factory):
    """A copy of the package in which every step was taken, and the paths that each command printed."""
    folder = tmp_path_factory.mktemp('contributing')
    for name in ('vistool', 'tools'):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns('__pycache__'))
    for name in ('configs', 'demo'):
        (folder / name).symlink_to(ROOT / name)
    commands = []
    for kind, path, line, text in _STEP.findall((ROOT / 'CONTRIBUTING.md').read_text()):
        target = folder / path
        if kind == 'file':
            assert not target.exists()
            target.write_text(text)
        elif kind == 'append':
            target.write_text(target.read_text() + text)
        elif kind == 'insert':
            before = target.read_text()
            assert before.count(f'{line}\n') == 1
            target.write_text(before.replace(f'{line}\n', f'{line}\n{text}'))
        else:
            commands += text.strip().splitlines()
    done = subprocess.run(
        [sys.executable, '-c', _DRIVER], cwd=folder, env={**os.environ, 'PYTHONPATH': str(folder)},
        input=json.dumps(commands), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder, {command: [folder / path for path in paths] for command, paths in json.loads(done.stdout).items()}


def test_the_added_code_passes_the_checks(followed):
    folder, _ = followed
    files = [f'vistool/{name}.py' for name in ('analyses/saliency', 'commands/vis_saliency', 'analyses/cam/methods')]
    for check in (['check'], ['format', '--check']):
        words = [sys.executable, '-m', 'ruff', *check, '--config', str(ROOT / 'pyproject.toml'), *files]
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


def test_a_cam_method(followed):
    _, printed = followed
    (path,) = next(paths for command, paths in printed.items() if 'MedianCAM' in command)
    assert path.name == 'median.png' and path.stat().st_size > 5000


def test_an_analysis_with_its_command(followed):
    folder, printed = followed
    many, one = (paths for command, paths in printed.items() if 'vis_saliency' in command)
    photos = list((folder / 'demo/dataset').rglob('*.jpg'))
    assert len(many) == len(photos) + 2 and (folder / 'saliency/gallery/index.html') in many
    assert [path.name for path in one] == ['saliency.pdf', 'saliency.npz']
    with np.load(one[1], allow_pickle=False) as raw:
        maps = raw['maps_0']
    assert maps.shape == (2, 224, 224) and maps.min() >= 0 and np.allclose(maps.max((1, 2)), 1)


def test_a_result_kind(followed):
    _, printed = followed
    assert [path.name for path in printed['python histogram.py']] == ['histogram.pdf', 'histogram.csv']
    values = printed['python histogram.py'][1].read_text().split()
    assert np.allclose(np.array(values, float), np.random.default_rng(0).normal(size=500))
