"""A command run from a folder full of traps, from a home with a name: no trap springs, nothing tells."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
PLANTED = [
    'numpy', 'accelerate', 'wandb', 'json', 'torch', 'timm', 'transformers', 'cv2', 'yaml', 'PIL', 'mmengine',
    'vistool', 'pydantic', 'matplotlib', 'rich', 'einops', 'typing_extensions', 'sitecustomize', 'tensorboard', 'mmdet',
    'pycocotools', 'torchvision', 'mmpretrain', 'onnxruntime', 'clearml',
]  # fmt: skip
USER = 'alice-of-the-test'


@pytest.fixture(scope='module')
def home(tmp_path_factory):
    """A home after ``vis_cam`` over its photos, run from it, with everything that writes files switched on."""
    home = tmp_path_factory.mktemp('homes') / USER
    (home / 'photos').mkdir(parents=True)
    for name in PLANTED:
        (home / f'{name}.py').write_text(f'open({str(home / "ran")!r}, "a").write({name + chr(10)!r})\n')
    for name in ('a.png', os.fsdecode(b'caf\xe9.png')):
        Image.open(ROOT / 'demo/coffee.png').resize((60, 40)).save(home / 'photos' / name)
    (home / 'photos/broken.png').write_bytes(b'no image')
    words = [home / 'photos', 'timm::test_resnet', 'none', '-o', 'out', '--panels', home / 'panels', '--gallery',
             '--save-raw', '--sheet', home / 'out/sheet.pdf']  # fmt: skip
    environment = {**os.environ, 'HOME': str(home), 'USER': USER, 'LOGNAME': USER, 'PYTHONPATH': str(ROOT)}
    command = [sys.executable, ROOT / 'tools/vis_cam.py', *words]
    done = subprocess.run(command, cwd=home, env=environment, capture_output=True)
    assert done.returncode == 1, done.stderr.decode()  # one image is broken
    return home


def test_no_planted_file_ran(home):
    assert not (home / 'ran').exists()


def test_a_folder_to_share_tells_neither_home_nor_user_nor_host(home):
    files = [path for folder in ('out', 'panels') for path in (home / folder).rglob('*') if path.is_file()]
    kinds = {path.suffix for path in files}
    assert {'.png', '.npz', '.pdf', '.json', '.jsonl', '.html', '.js', '.jpg'} <= kinds
    host = re.compile(rf'\b{re.escape(socket.gethostname())}\b')
    for path in files:
        texts = [path.read_bytes()]
        if path.suffix == '.npz':
            with zipfile.ZipFile(path) as archive:
                texts += [archive.read(name) for name in archive.namelist()]
            texts.append(str(np.load(path)['recipe']).encode('utf-8', 'surrogateescape'))
        for text in texts:
            assert USER.encode() not in text and str(home.parent).encode() not in text, path
        if path.suffix in ('.json', '.jsonl', '.html', '.js'):
            assert not host.search(path.read_text()), path


def test_every_image_is_done_or_reported_alone(home):
    entries = [json.loads(line) for line in (home / 'out/manifest.jsonl').read_text().splitlines()]
    assert {entry['name']: bool(entry.get('error')) for entry in entries} == {
        'a': False, 'caf\udce9': False, 'broken': True,
    }  # fmt: skip
    assert all(entry['input'].startswith('photos/') for entry in entries)


def test_provenance_names_the_photo_without_its_folder(home):
    recipe = json.loads(str(np.load(next((home / 'out').glob('a_*.npz')))['recipe']))
    assert recipe['image'] == 'photos/a.png'
    assert recipe['command'].startswith('vis_cam photos timm::test_resnet none -o out --panels panels')
