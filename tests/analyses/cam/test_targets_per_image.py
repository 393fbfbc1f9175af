"""Targets for each image of a batch, in all the forms in which targets, layers and methods may be given."""

import numpy as np
import pytest
import torch
from torch import nn

import vistool as vt
from vistool.errors import InputError
from vistool.models.model import Model


class Net(nn.Module):
    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.layer = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.Tanh())
        self.fc = nn.Linear(6, 5)

    def forward(self, x):
        return self.fc(self.layer(x).mean((2, 3)))


@pytest.fixture
def images():
    return torch.randn(3, 3, 8, 10, generator=torch.Generator().manual_seed(1))


def shown(results):
    return [[target.id for target in result.targets] for result in results]


@pytest.mark.parametrize('method', ['gradcam', 'finercam', 'ablationcam', 'scorecam'])
def test_each_image_gets_the_maps_of_its_own_targets(images, method):
    network, targets = Net(), [[1], [4, 0, 2], [3, 1]]
    results = vt.CAM(method, targets=targets, layers='layer')(network, images)
    assert shown(results) == targets
    for image, own, result in zip(images, targets, results, strict=True):
        alone = vt.CAM(method, targets=own, layers='layer')(network, image)
        assert [entry.coordinates for entry in result.maps] == [entry.coordinates for entry in alone.maps]
        for one, other in zip(result.maps, alone.maps, strict=True):
            np.testing.assert_allclose(one.values, other.values, atol=1e-5)


def test_names_rankings_and_tensors_in_lists_of_targets(images):
    model = Model(Net(), classes=tuple('abcde'))
    lists = ['c', 'top2'], torch.tensor([4]), ['top1', 0]
    results = vt.CAM(targets=lists, layers='layer')(model, images)
    best = model.module(images).topk(2).indices.tolist()
    assert shown(results)[:2] == [list(dict.fromkeys([2, *best[0]])), [4]]
    assert shown(results)[2] == list(dict.fromkeys([best[2][0], 0]))


@pytest.mark.parametrize('targets', [[[1], [2]], [[1], [2], [3], [4]], torch.tensor([[1], [2]])])
def test_another_number_of_lists_than_images_is_an_error(images, targets):
    with pytest.raises(InputError, match=r'targets: \d lists? of targets for 3 images; accepted: one list'):
        vt.CAM(targets=targets, layers='layer')(Net(), images)


def test_targets_and_lists_of_targets_do_not_mix(images):
    with pytest.raises(InputError, match='single targets and lists of targets are mixed'):
        vt.CAM(targets=[1, [2], [3]], layers='layer')(Net(), images)


@pytest.mark.parametrize(
    'targets',
    [2, '2', torch.tensor(2), torch.tensor([2]), np.int64(2), [np.int64(2)], [torch.tensor(2)], (2,)],
    ids=repr,
)
def test_forms_of_one_target(images, targets):
    assert shown(vt.CAM(targets=targets, layers='layer')(Net(), images)) == [[2]] * 3


def test_layers_by_name_or_as_modules(images):
    network = Net()
    expected = vt.CAM(['gradcam'], layers=['layer.1'])(network, images)
    forms = 'layer.1', network.layer[1], [network.layer[1]], ['layer.1']
    for form in forms:
        for one, other in zip(vt.CAM('gradcam', layers=form)(network, images), expected, strict=True):
            assert np.array_equal(one.maps[0].values, other.maps[0].values)
        assert vt.FeatureMaps(form)(network, images)[0].layers == ('layer.1',)
    with pytest.raises(InputError, match='layers: Linear is not a layer of Net; accepted: names'):
        vt.CAM(layers=nn.Linear(1, 1))(network, images)


def test_following_keeps_each_images_own_targets(images):
    first, second = Net(0), Model(Net(1))
    cam = vt.CAM(layers='layer')
    results = cam(first, images)
    followed = cam.follow(results, second)(second, images)
    assert shown(followed) == shown(results) == [[index] for index in first(images).argmax(1).tolist()]


def test_attention_takes_targets_for_each_image():
    timm = pytest.importorskip('timm')
    torch.manual_seed(0)
    network, inputs = timm.create_model('test_vit', img_size=64, num_classes=5).eval(), torch.randn(2, 3, 64, 64)
    for method in ('grad-rollout', 'legrad'):
        results = vt.Attention(method, targets=[[1, 3], [2]])(network, inputs)
        assert shown(results) == [[1, 3], [2]] and [len(result.maps) for result in results] == [2, 1]
        alone = vt.Attention(method, targets=2)(network, inputs[1])
        np.testing.assert_allclose(results[1].maps[0].values, alone.maps[0].values, atol=1e-5)


def test_methods_are_listed_in_the_order_of_the_documentation():
    from pathlib import Path

    from vistool.analyses.cam import METHODS
    from vistool.analyses.cam.methods import _DOCUMENTED

    assert tuple(METHODS)[: len(_DOCUMENTED)] == _DOCUMENTED
    text = Path('docs/en/vis_cam.md').read_text(encoding='utf-8')
    assert all(METHODS[name].title in text for name in _DOCUMENTED)
