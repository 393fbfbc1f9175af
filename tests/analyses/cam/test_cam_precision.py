"""Mixed precision: maps in bf16 on the CPU against those in fp32, with really trained weights, scaled alike."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import vistool as vt
from vistool.commands.vis_cam import main

COFFEE = 'demo/coffee.png'
SIX = ['gradcam', 'gradcam++', 'xgradcam', 'eigencam', 'eigengradcam', 'layercam']


def maps_of(path):
    with np.load(path) as raw:
        return dict(zip(raw['names_0'].tolist(), raw['maps_0'], strict=True))


def test_amp_stays_within_two_hundredths_on_a_convolutional_network(tmp_path, capsys):
    config = 'configs/efficientnet_lite/efficientnet-lite0_in1k.py'
    common = ['--method', *SIX, '--target-category', 'espresso', '--save-raw', '-o']
    for name, options in (('full', []), ('mixed', ['--amp'])):
        assert main([COFFEE, config, *options, *common, str(tmp_path / f'{name}.png')]) == 0
    capsys.readouterr()
    full, mixed = maps_of(tmp_path / 'full.npz'), maps_of(tmp_path / 'mixed.npz')
    assert len(full) == 6
    for name, values in full.items():
        assert mixed[name].dtype == np.float32
        assert 0 < np.abs(mixed[name] - values).max() <= 2e-2, name  # not 0: it was another computation


def test_amp_stays_within_two_hundredths_on_a_transformer():
    """DINOv2, similarity to another photo, at 16×16 tokens."""
    model = vt.load('configs/dinov2/vit-small-p14_dinov2-pre_headless.py')
    coffee, other = (
        F.interpolate(model.batch([model.read(path)]), (224, 224), mode='bilinear')
        for path in (COFFEE, 'demo/astronaut.png')
    )
    cam = vt.CAM(['gradcam', 'gradcam++', 'layercam', 'hirescam', 'eigencam'], reference=other[0])
    full = cam(model.module, coffee)[0]
    with model.precision(True):
        mixed = cam(model.module, coffee)[0]
    for a, b in zip(full.maps, mixed.maps, strict=True):
        assert 0 < np.abs(a.values - b.values).max() <= 2e-2, a


@pytest.mark.parametrize('amp', [False, True])
def test_precision_is_as_found_afterwards(amp):
    model = vt.load(torch.nn.Conv2d(3, 4, 3))
    with model.precision(amp):
        assert torch.is_autocast_enabled('cpu') == amp
    assert not torch.is_autocast_enabled('cpu')
