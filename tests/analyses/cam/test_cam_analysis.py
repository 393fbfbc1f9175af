"""Many methods, classes and layers at once: what comes out, in which order, and what it cost."""

import naive_cam
import numpy as np
import pytest
import torch
from torch import nn

from vistool import CAM
from vistool.analyses.cam.methods import METHODS, Needs, find_methods
from vistool.errors import InputError
from vistool.visualization.facets import facets


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.one = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Tanh())
        self.two = nn.Sequential(nn.Conv2d(4, 5, 3, stride=2, padding=1), nn.Tanh())
        self.fc = nn.Linear(5, 6)
        self.runs = 0

    def forward(self, x):
        self.runs += 1
        return self.fc(self.two(self.one(x)).square().mean((2, 3)))


@pytest.fixture
def net():
    return Net().double().eval(), torch.randn(2, 3, 8, 12, dtype=torch.float64)


FAMILY = 'gradcam gradcam++ xgradcam layercam hirescam gradcamelementwise eigencam eigengradcam segeigencam kpcacam fem'


def test_all_means_those_that_share_one_forward(net):
    model, inputs = net
    assert set(find_methods(['all'])) == set(FAMILY.split())
    result = CAM(['all'], targets=[1, 2], layers=['two'])(model, inputs[0])
    assert model.runs == 1
    names = [tile.name for tile in facets(result).tiles]
    assert len(set(names)) == len(names) == 11 + 8  # three of them show no class and appear once
    assert {'eigencam', 'kpcacam', 'fem', 'gradcam/class 1', 'gradcam/class 2'} <= set(names)


def test_all_in_company_keeps_the_order_and_repeats_nothing():
    found = list(find_methods(['FEM', 'all', 'scorecam']))
    assert found[0] == 'fem' and found[-1] == 'scorecam' and len(found) == 12


@pytest.mark.parametrize('fusion', ['mean', 'max'])
def test_layers_are_fused_after_they_are_scaled(net, fusion):
    model, inputs = net
    results = CAM(['hirescam'], targets=[3], layers=['one', 'two'], layer_fusion=fusion)(model, inputs)
    for result, image in zip(results, inputs, strict=True):
        one = model.one(image[None])
        two = model.two(one)
        gradients = torch.autograd.grad(model.fc(two.square().mean((2, 3)))[0, 3], [one, two])
        signed = [(a * g).sum(1)[0].detach().numpy() for a, g in zip((one, two), gradients, strict=True)]
        layers = [naive_cam.bilinear(naive_cam.minmax(np.maximum(x, 0)), (8, 12)) for x in signed]
        fused = naive_cam.minmax(np.max(layers, 0) if fusion == 'max' else np.mean(layers, 0))
        np.testing.assert_allclose(result.maps[0].values, fused, atol=1e-6)
        assert result.maps[0].range is None


def test_without_fusion_there_is_a_column_for_each_layer(net):
    model, inputs = net
    cam = CAM(['gradcam', 'eigencam', 'refinecam'], targets=[0, 1], layers=['one', 'two'], layer_fusion='none')
    result = cam(model, inputs[0])
    tiles = facets(result).tiles
    assert facets(result).columns == ('GradCAM · one', 'GradCAM · two', 'EigenCAM · one', 'EigenCAM · two', 'RefineCAM')
    assert [(tile.group, tile.name) for tile in tiles if tile.method == 'GradCAM'] == [
        ('one', 'gradcam/class 0'),
        ('two', 'gradcam/class 0'),
        ('one', 'gradcam/class 1'),
        ('two', 'gradcam/class 1'),
    ]
    assert result.provenance['layer_fusion'] == 'none'
    alone = CAM(['gradcam'], targets=[0], layers=['one', 'two'], layer_fusion='none')(model, inputs[0])
    shown = facets(alone)
    assert shown.columns == ('one', 'two') and shown.caption == 'Net · GradCAM'  # what varies, and what does not
    with pytest.raises(InputError, match=r"unknown fusion 'median'; accepted: mean, max, none"):
        CAM(layers=['one'], layer_fusion='median')(model, inputs)


def test_random_weights_depend_on_the_seed_alone(net):
    model, inputs = net
    cam = CAM(['randomcam'], layers=['two'], seed=3)
    batch, single = cam(model, inputs), cam(model, inputs[1])
    np.testing.assert_array_equal(batch[1].maps[0].values, single.maps[0].values)
    a = model.two(model.one(inputs[1:]))[0].detach().numpy()
    weights = (torch.rand(5, generator=torch.Generator().manual_seed(3), dtype=torch.float64) * 2 - 1).numpy()
    expected = naive_cam.finish([naive_cam.weighted_sum(weights, a)], (8, 12))
    np.testing.assert_allclose(single.maps[0].values, expected, atol=1e-6)
    other = CAM(['randomcam'], layers=['two'], seed=4)(model, inputs[1])
    assert np.abs(other.maps[0].values - single.maps[0].values).max() > 0.1
    assert facets(single).tiles[0].name == 'randomcam' and 'target' not in single.maps[0].coordinates


@pytest.mark.parametrize('name', list(METHODS))
def test_a_batch_gives_each_image_what_it_gets_alone(net, name):
    model, inputs = net
    cam = CAM([name], targets=[2], layers=['two'], aug_smooth=name not in ('scorecam',))
    for result, image in zip(cam(model, inputs), inputs, strict=True):
        np.testing.assert_allclose(result.maps[0].values, cam(model, image).maps[0].values, atol=1e-5)


def test_the_table_says_what_each_needs():
    assert all(entry.title and entry.paper and entry.needs for entry in METHODS.values())
    assert (
        METHODS['fullgrad'].needs == Needs.RUNS | Needs.NO_LAYER and METHODS['fullgrad'].needs.words == 'runs, no layer'
    )
    free = [name for name, entry in METHODS.items() if not entry.shows_class and not entry.is_baseline]
    assert free == ['eigencam', 'kpcacam', 'fem', 'randomcam']


def test_a_method_without_a_layer_needs_none(net):
    model, inputs = net
    result = CAM(['fullgrad'], targets=[2])(model, inputs[0])
    assert result.layers == () and facets(result).caption == 'Net'
    both = CAM(['fullgrad', 'gradcam'], targets=[2])(model, inputs[0])  # the table does not know this network
    assert len(both.layers) == 1


def test_classes_of_one_name_are_told_apart_by_their_ids(net):
    import vistool as vt

    model, inputs = net
    named = vt.load(model, classes=['crane, bird', 'cup', 'crane, machine', 'tea', 'pot', 'cat'])
    result = CAM(['gradcam', 'eigencam'], targets=[0, 1, 2], layers=['two'])(named, inputs[0])
    names = [tile.name for tile in facets(result).tiles]
    assert names == ['gradcam/crane (0)', 'eigencam', 'gradcam/cup', 'gradcam/crane (2)']
    assert len(facets(result).rows) == 3 and [target.id for target in result.targets] == [0, 1, 2]
