"""Files for a supplement: what ``--anonymous`` writes tells neither user nor machine, nor where anything lies."""

from __future__ import annotations

import json
import os
import platform
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vistool.commands import browse_dataset, vis_cam, vis_diff, vis_lr, vis_tsne
from vistool.environment import anonymized, anonymous_files, is_anonymous, shareable

CONFIGS = Path(__file__).parents[2] / 'configs'
USER, HOST, LAB = 'anna.test', 'lab-of-anna', 'secret-lab'
NETWORK = ['timm::test_resnet', 'none']


def _texts(path):
    """What a file holds, its packed members unpacked, with its name."""
    texts = [path.read_bytes()]
    if path.suffix == '.npz':
        with zipfile.ZipFile(path) as archive:
            texts += [archive.read(name) for name in archive.namelist()]
        # NumPy writes text as UTF-32, in which nothing would be found.
        with np.load(path) as arrays:
            texts += [str(value.tolist()).encode() for value in arrays.values() if value.dtype.kind == 'U']
    return [*texts, path.name.encode()]


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    """A working directory below a home, and a folder of photos with subfolders elsewhere, with names that tell."""
    root = tmp_path_factory.mktemp('anonymous')
    here, photos = root / 'homes' / USER / 'paper', root / LAB / USER / 'photos'
    here.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(4):
        path = photos / f'class{number % 2}' / f'{number // 2}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 56, 3), np.uint8)).save(path)
    return root, here, photos


@pytest.fixture(scope='module')
def written(place):
    """The working directory after commands that write all kinds of files."""
    _, here, photos = place
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('HOME', str(here.parent))
        patch.setenv('USER', USER)
        patch.setattr(platform, 'node', lambda: HOST)
        patch.chdir(here)
        run = ['--gallery', '--save-raw', '--panels', str(here / 'panels'), '--sheet', 'sheet.pdf', '--anonymous']
        assert vis_cam.main([str(photos), *NETWORK, '-o', 'one', '--method', 'gradcam', *run]) == 0
        compared = [str(photos), *NETWORK, '-o', str(here / 'two'), '--seed', '1', '--anonymous']
        assert vis_cam.main([*compared, '--save-raw', '--gallery', 'one']) == 0
        assert vis_diff.main(['one', str(here / 'two'), '-o', 'diff', '--junit', 'diff.xml', '--anonymous']) in (
            0,
            1,
        )  # 1: the maps differ
        assert vis_tsne.main([*NETWORK, '--img', str(photos), '-o', 'map', '--gallery', '--anonymous']) == 0
        data = str(CONFIGS / 'demo_dataset/plain.py')
        assert browse_dataset.main([data, '--report', '-o', 'report.svg', '--save-raw', '--anonymous']) == 0
        schedule = str(CONFIGS / 'resnet/resnet50_b16x8_cifar100.py')
        assert vis_lr.main([schedule, '-d', '500', '-o', 'lr.pdf', '--save-raw', '--anonymous']) == 0
    return here


def test_no_file_tells_home_user_machine_or_folders_outside(place, written):
    files = [path for path in written.rglob('*') if path.is_file()]
    suffixes = {path.suffix for path in files}
    assert {
        '.png',
        '.npz',
        '.pdf',
        '.svg',
        '.json',
        '.jsonl',
        '.html',
        '.js',
        '.jpg',
        '.csv',
        '.md',
        '.xml',
        '.tex',
    } <= suffixes
    told = [USER, HOST, LAB, str(place[0]), str(CONFIGS), os.path.expanduser('~') + '/']
    for path in files:
        for text in _texts(path):
            for word in told:
                assert word.lower().encode() not in text.lower(), (path, word)


def test_images_of_one_name_in_several_folders_stay_apart(written):
    entries = [json.loads(line) for line in (written / 'one/manifest.jsonl').read_text().splitlines()]
    assert [entry['input'] for entry in entries] == [f'class{k}/{n}.png' for k in range(2) for n in range(2)]


def test_a_run_goes_on_only_as_it_began(written, place, monkeypatch, capsys):
    monkeypatch.chdir(written)
    assert vis_cam.main([str(place[2]), *NETWORK, '-o', 'one', '--save-raw', '--resume']) == 2
    assert 'anonymous' in capsys.readouterr().err


def test_backends_whose_files_name_the_machine_are_refused(place, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    words = [str(place[2]), *NETWORK, '-o', 'out', '--vis-backend', 'tensorboard', '--anonymous']
    assert vis_cam.main(words) == 2
    assert '--anonymous' in (said := capsys.readouterr().err) and '--vis-backend' in said
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
    ('text', 'told'),
    [
        ('vis_cam /data/lab/photos hf::/data/lab/m --x=/a/b/c.pth', 'vis_cam photos hf::m --x=c.pth'),
        ('~/work_dirs/x.py ../../lab/x.png ~bob/y.py', 'x.py x.png y.py'),
        ('https://git.example.org/bob/repo/best.pth', 'best.pth'),
        ('https://lab.example.edu/ https://git.example.org/jane', 'anonymous anonymous'),
        ('https://git.example.org/best.pth?token=3', 'best.pth'),
        ('/home/jane/Secret Lab/a.png', 'a.png'),
        ('~/Secret Lab/a.png', 'a.png'),
        ('../Secret Lab/a.png', 'a.png'),
        ('photos/a.png and/or 1/2', 'photos/a.png and/or 1/2'),
        ('wait... ~3 of 4', 'wait... ~3 of 4'),
        ('demo://efficientnet-lite0 timm::x', 'demo://efficientnet-lite0 timm::x'),
        (f'runs/{USER}/best.pth on {HOST}', 'runs/anonymous/best.pth on anonymous'),
        (f'{USER}er', f'{USER}er'),
    ],
)
def test_what_stays_of_a_text(text, told, monkeypatch):
    monkeypatch.setenv('USER', USER)
    monkeypatch.setattr(platform, 'node', lambda: f'{HOST}.example.org')
    with anonymous_files():
        assert shareable(text) == anonymized([text])[0] == told
    assert anonymized(text) == text


def test_common_names_of_users_stay(monkeypatch):
    monkeypatch.setenv('USER', 'ubuntu')
    with anonymous_files():
        assert shareable('data/ubuntu/train.txt') == 'data/ubuntu/train.txt'


def test_an_inner_call_does_not_end_an_outer_one():
    with anonymous_files():
        with anonymous_files(False):
            assert shareable('/data/lab/x.png') == 'x.png'
        assert shareable('/data/lab/x.png') == 'x.png'
    assert shareable('/data/lab/x.png') == 'lab/x.png'


def test_of_two_calls_in_threads_the_last_ends_it():
    first, second = anonymous_files(), anonymous_files()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert is_anonymous()
    second.__exit__(None, None, None)
    assert not is_anonymous()
