"""What a large photo takes beside the model: each command in a process of its own, against a small photo's run."""

import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

LIMIT = 1.2 * 1024  # MiB above the run with a small photo

CONFIG = """
default_scope = 'mmpretrain'
model = dict(
    type='ImageClassifier',
    backbone=dict(type='VisionTransformer', img_size=64, patch_size=16, arch=dict(
        embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64)),
    head=dict(type='VisionTransformerClsHead', num_classes=5, in_channels=32),
    data_preprocessor=dict(mean=[123.0, 116.0, 103.0], std=[58.0, 57.0, 57.0], to_rgb=True))
test_pipeline = [
    dict(type='LoadImageFromFile'), dict(type='ResizeEdge', scale=64, edge='short'),
    dict(type='CenterCrop', crop_size=64), dict(type='PackInputs')]
"""
DATASET = """
default_scope = 'mmpretrain'
train_dataloader = dict(batch_size=1, sampler=dict(type='DefaultSampler', shuffle=False), dataset=dict(
    type='CustomDataset', data_root={folder!r}, ann_file='list.txt', pipeline=[
        dict(type='LoadImageFromFile'), dict(type='ResizeEdge', scale=64, edge='short'),
        dict(type='CenterCrop', crop_size=64), dict(type='PackInputs')]))
"""
COMMANDS = {
    'vis_cam': ['none'],
    'vis_cam --panels': ['none', '--panels', 'PANELS'],
    'vis_attention': ['none'],
    'vis_attention --img-size': ['none', '--img-size', '64'],
    'vis_featmap': ['none', '--target-layers', 'backbone.layers.1'],
    'vis_patches': [],
    'browse_dataset': ['-m', 'pipeline', '-n', '1'],
    'browse_dataset --report': ['--report'],
}


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp('photos')
    coarse = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    for suffix in ('jpg', 'png'):
        Image.fromarray(coarse).save(folder / f'small.{suffix}')
        large = Image.fromarray(coarse.repeat(100, axis=0).repeat(100, axis=1))
        large.save(folder / f'large.{suffix}', **({'compress_level': 1} if suffix == 'png' else {}))
    (folder / 'model.py').write_text(CONFIG)
    (folder / 'dataset.py').write_text(DATASET.format(folder=str(folder)))
    return folder


def peak(folder, command, photo):
    """The largest resident memory of a run, in MiB."""
    name, *_ = command.split()
    options = [str(folder / 'panels') if word == 'PANELS' else word for word in COMMANDS[command]]
    words = [f'tools/{name}.py', str(folder / photo), str(folder / 'model.py'), *options]
    if name == 'browse_dataset':
        (folder / 'list.txt').write_text(f'{photo} 0')
        words = [f'tools/{name}.py', str(folder / 'dataset.py'), *options]
    process = subprocess.Popen([sys.executable, *words, '-o', str(folder / 'out.png')], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0
    return usage.ru_maxrss / 1024


@pytest.mark.slow
@pytest.mark.parametrize('suffix', ['jpg', 'png'])
@pytest.mark.parametrize('command', COMMANDS)
def test_a_photo_of_108_million_pixels_stays_below_1_2_gib(photos, command, suffix):
    above = peak(photos, command, f'large.{suffix}') - peak(photos, command, f'small.{suffix}')
    assert above < LIMIT, f'{above:.0f} MiB'
