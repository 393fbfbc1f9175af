"""Parameters from Python: one value or several, of any kind of number; other types are refused by name."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
from torch import nn

import vistool as vt


@pytest.fixture(scope='module')
def convolutional():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4))


@pytest.fixture(scope='module')
def transformer():
    torch.manual_seed(0)
    return timm.create_model('vit_tiny_patch16_224', img_size=32, depth=2)


@pytest.fixture
def image():
    return torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ('analysis', 'parameter'),
    [
        (vt.CAM(1), 'methods'),
        (vt.CAM(['gradcam', None]), 'methods'),
        (vt.CAM(metrics=3), 'metrics'),
        (vt.FeatureMaps(layers=3), 'layers'),
        (vt.FeatureMaps(reduction=3), 'reduction'),
        (vt.FeatureMaps(channels=2.5), 'channels'),
        (vt.FeatureMaps(similar_to=[1, 2, 3]), 'similar_to'),
        (vt.FeatureMaps(similar_to=[(1, 2, 3)]), 'similar_to'),
        (vt.FeatureMaps(similar_to='left'), 'similar_to'),
    ],
)
def test_another_type_is_refused_by_the_name_of_its_parameter(analysis, parameter, convolutional, image):
    with pytest.raises(vt.InputError) as error:
        analysis(convolutional, image)
    assert error.value.parameter == parameter


@pytest.mark.parametrize(
    ('analysis', 'parameter'),
    [
        (vt.Attention(layers=slice(0, 2)), 'layers'),
        (vt.Attention(layers=[None]), 'layers'),
        (vt.Attention(heads=slice(1)), 'heads'),
        (vt.Attention(queries=None), 'queries'),
        (vt.Attention(queries=[None]), 'queries'),
        (vt.Attention(method=None), 'method'),
    ],
)
def test_so_are_those_of_attention(analysis, parameter, transformer, image):
    with pytest.raises(vt.InputError) as error:
        analysis(transformer, image)
    assert error.value.parameter == parameter


def values(result):
    return np.stack([item.values for item in result.maps])


@pytest.mark.parametrize('given', [(10, 12), '10,12', ['10,12'], [[10, 12]], np.array([[10, 12]])])
def test_a_point_is_a_pair_or_a_word_alone_or_in_a_list(given, convolutional, image):
    alone = vt.FeatureMaps('0', similar_to=given)(convolutional, image)
    expected = vt.FeatureMaps('0', similar_to=[(10, 12)])(convolutional, image)
    np.testing.assert_array_equal(values(alone), values(expected))


def test_numbers_of_numpy_are_numbers(convolutional, transformer, image):
    def same(one, other, network):
        np.testing.assert_array_equal(values(one(network, image)), values(other(network, image)))

    same(vt.FeatureMaps('0', channels=np.arange(3)), vt.FeatureMaps('0', channels=[0, 1, 2]), convolutional)
    same(vt.FeatureMaps('0', channels=np.int64(4)), vt.FeatureMaps('0', channels=4), convolutional)
    same(vt.Attention(layers=np.int64(0)), vt.Attention(layers=0), transformer)
    same(vt.Attention(heads=np.arange(2)), vt.Attention(heads=[0, 1]), transformer)
