"""``--display-range``, ``--bands`` and ``--axes`` in every command that reads images, to the pixel."""

import cv2
import numpy as np
import pytest
import tifffile
from command_line import runner
from PIL import Image

from vistool.commands import browse_dataset, vis_cam, vis_featmap, vis_patches

SIZE = HEIGHT, WIDTH = 32, 72
BANDS = 8
CONFIG = """
default_scope = 'mmpretrain'
model = dict(
    type='ImageClassifier',
    backbone=dict(type='VisionTransformer', img_size={size}, patch_size=8, in_channels=8, out_type='avg_featmap',
        with_cls_token=False, arch=dict(embed_dims=16, num_layers=1, num_heads=2, feedforward_channels=16)),
    head=dict(type='LinearClsHead', num_classes=3, in_channels=16),
    data_preprocessor=dict(mean=[2000.0] * 8, std=[900.0] * 8))
test_pipeline = [
    dict(type='LoadImageFromFile', imdecode_backend='tifffile', color_type='unchanged'), dict(type='PackInputs')]
val_dataloader = dict(batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False), dataset=dict(
    type='CustomDataset', data_root={root!r}, extensions=('.tif',), pipeline=test_pipeline))
val_evaluator = dict(type='Accuracy')
val_cfg = dict()
"""


def stored():
    """Twelve-bit values, ``(H, W, 8)``, different in every band and pixel."""
    return np.random.default_rng(0).integers(0, 4096, (*SIZE, BANDS)).astype(np.uint16)


def either():
    """Values ``(8, 72, 8)``."""
    return stored()[:8, :72]


def pages():
    """Values ``(20, 60, 60)``."""
    return np.random.default_rng(1).integers(0, 4096, (20, 60, 60)).astype(np.uint16)


def both():
    """Values ``(70, 80, 70)``."""
    return np.random.default_rng(2).integers(0, 4096, (70, 80, 70)).astype(np.uint16)


def expected(bands=(1, 2, 3), low=0.0, high=4095.0, values=None):
    """The picture, written out: bands as colors, the range as black to white."""
    values = (stored() if values is None else values)[..., [band - 1 for band in bands]].astype(np.float64)
    levels = np.rint(np.clip((values - low) / (high - low), 0, 1) * 255).astype(np.uint8)
    return np.repeat(levels, 3 // len(bands), axis=2)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp('measurements')
    (root / 'data' / 'field').mkdir(parents=True)
    tifffile.imwrite(root / 'data' / 'field' / 'a.tif', stored(), photometric='minisblack', planarconfig='contig')
    (root / 'model.py').write_text(CONFIG.format(size=SIZE, root=str(root / 'data')))
    # Bands first or last: nothing in these files says which.
    (root / 'pages' / 'field').mkdir(parents=True)
    tifffile.imwrite(root / 'pages' / 'field' / 'a.tif', pages(), photometric='minisblack')
    np.save(root / 'either.npy', either())
    (root / 'both' / 'field').mkdir(parents=True)
    tifffile.imwrite(root / 'both' / 'field' / 'a.tif', both(), photometric='minisblack', planarconfig='contig')
    (root / 'both.py').write_text(CONFIG.format(size=SIZE, root=str(root / 'both')))
    (root / 'pages.py').write_text(CONFIG.format(size=SIZE, root=str(root / 'pages')))
    return root


def panel(capsys, folder, out, command, image, *words):
    """The photo as ``--panels`` writes it, pixel by pixel."""
    more = [] if command is vis_patches else [folder / 'model.py', 'none']
    name = 'input.png'
    if command is vis_patches:
        more, name = ['--patch-size', 8, '--pad', 0], '1.png'
    if command is vis_featmap:
        more += ['--target-layers', 'backbone.layers.0', '--view', 'original']
    code, _, err = runner(command.main)(capsys, image, *more, '-o', out / 'x.png', '--panels', out / 'panels', *words)
    assert code == 0, err
    (path,) = (out / 'panels').rglob(name)
    return np.asarray(Image.open(path)), err


CHOICES = [
    ((), {}, 'shown 0–4095 · bands 1–3 of 8'),
    (('--display-range', '1000,3000'), {'low': 1000.0, 'high': 3000.0}, 'shown 1000–3000'),
    (('--bands', '4,3,2'), {'bands': (4, 3, 2)}, 'bands 4, 3, 2 of 8'),
    (('--bands', '8', '--display-range', '0,2000'), {'bands': (8,), 'high': 2000.0}, 'band 8 of 8'),
]


@pytest.mark.parametrize(('words', 'shown', 'said'), CHOICES)
@pytest.mark.parametrize('command', [vis_cam, vis_featmap, vis_patches])
def test_range_and_bands_of_a_photo(capsys, tmp_path, folder, command, words, shown, said):
    image = folder / 'data' / 'field' / 'a.tif'
    pixels, err = panel(capsys, folder, tmp_path, command, image, *words)
    np.testing.assert_array_equal(pixels, expected(**shown))
    assert said in err


def dataset_shows(capsys, out, config, wanted, *words):
    """Whether the picture of a dataset's file has these pixels in it."""
    options = ['-p', 'val', '-m', 'original', '-o', out / 'x.png', '-r', 1, '--workers', 0]
    code, _, err = runner(browse_dataset.main)(capsys, config, *options, *words)
    assert code == 0, err
    pixels = np.asarray(Image.open(out / 'x.png').convert('RGB'))
    differences = cv2.matchTemplate(pixels, wanted, cv2.TM_SQDIFF)
    top, left = np.unravel_index(differences.argmin(), differences.shape)
    return np.array_equal(pixels[top : top + wanted.shape[0], left : left + wanted.shape[1]], wanted)


@pytest.mark.parametrize(('words', 'shown', 'said'), CHOICES)
def test_range_and_bands_of_a_dataset(capsys, tmp_path, folder, words, shown, said):
    assert dataset_shows(capsys, tmp_path, folder / 'model.py', expected(**shown), *words)


@pytest.mark.parametrize('axes', ['HWC', 'CHW'])
@pytest.mark.parametrize('command', [vis_cam, vis_featmap, vis_patches])
def test_axes_of_a_photo(capsys, tmp_path, folder, command, axes):
    pixels, _ = panel(capsys, folder, tmp_path, command, folder / 'either.npy', '--axes', axes)
    values = either() if axes == 'HWC' else either().transpose(1, 2, 0)
    np.testing.assert_array_equal(pixels, expected(values=values))


def test_axes_that_nothing_tells_are_asked_for(capsys, tmp_path, folder):
    code, _, err = runner(vis_patches.main)(capsys, folder / 'either.npy', '--patch-size', 8, '-o', tmp_path / 'x.png')
    assert code == 2 and '--axes HWC or --axes CHW' in err


@pytest.mark.parametrize('axes', ['HWC', 'CHW'])
@pytest.mark.parametrize(('name', 'stack'), [('pages', pages), ('both', both)])
def test_axes_of_a_dataset(capsys, tmp_path, folder, axes, name, stack):
    values = stack() if axes == 'HWC' else stack().transpose(1, 2, 0)
    assert dataset_shows(capsys, tmp_path, folder / f'{name}.py', expected(values=values), '--axes', axes)
