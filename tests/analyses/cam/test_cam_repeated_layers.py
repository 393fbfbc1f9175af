"""A module that runs several times in one forward: every method looks at the same call, the one that matters."""

import copy

import naive_cam
import numpy as np
import pytest
import torch
from torch import nn

from vistool import CAM


class Repeating(nn.Module):
    """Runs ``shared`` twice; the score hears of the first result, of the second, or of both."""

    def __init__(self, heard):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.shared, self.fc, self.heard = nn.Conv2d(6, 6, 3, padding=1), nn.Linear(6, 5), heard

    def forward(self, x):
        first = self.shared(self.stem(x).relu())
        second = self.shared(first.tanh())
        value = {'first': first, 'second': second, 'both': first.tanh() + second}[self.heard]
        return self.fc((value.relu() ** 2).mean((2, 3)))


class Numbered(nn.Module):
    """A layer whose calls pass through modules of their own: the oracle's handle on one of them."""

    def __init__(self, layer, calls=2):
        super().__init__()
        self.layer, self.calls, self.seen = layer, nn.ModuleList(nn.Identity() for _ in range(calls)), 0

    def forward(self, x):
        self.seen += 1
        return self.calls[(self.seen - 1) % len(self.calls)](self.layer(x))


def unrolled(model, name, call):
    """A copy of the network, and the module in it that sees only the given call of the layer ``name``."""
    other = copy.deepcopy(model)
    parent, _, child = name.rpartition('.')
    numbered = Numbered(other.get_submodule(name))
    setattr(other.get_submodule(parent), child, numbered)
    return other, numbered.calls[call]


def name_of(model, module):
    return next(name for name, other in model.named_modules() if other is module)


@pytest.fixture(scope='module')
def deit3():
    """Of mmpretrain, which normalises by ``ln1`` before attention and before the feed-forward layer behind it."""
    from mmpretrain.registry import MODELS

    torch.manual_seed(0)
    arch = {'embed_dims': 24, 'num_layers': 2, 'num_heads': 2, 'feedforward_channels': 48}
    backbone = {'type': 'DeiT3', 'arch': arch, 'img_size': (32, 48), 'patch_size': 8}
    head = {'type': 'VisionTransformerClsHead', 'num_classes': 5, 'in_channels': 24}
    model = MODELS.build({'type': 'mmpretrain.ImageClassifier', 'backbone': backbone, 'head': head}).double()
    model.eval()
    for parameter in model.parameters():  # its scales start at 1e-4 and its head at 0: nothing would be heard
        parameter.data = torch.randn_like(parameter) * 0.3
    return model, torch.randn(2, 3, 32, 48, dtype=torch.float64)


def build(heard):
    torch.manual_seed(3)
    return Repeating(heard).double().eval(), torch.randn(2, 3, 12, 16, dtype=torch.float64)


def tokens(output):
    return output[0, 1:].T.unflatten(1, (4, 6))


CASES = [('first', 0), ('second', 1), ('both', 1), ('deit3', 0)]


@pytest.fixture(params=CASES, ids=[name for name, _ in CASES])
def case(request):
    """A network, images, the layer's name, which of its calls counts, and how its output becomes a map."""
    name, call = request.param
    if name == 'deit3':
        return *request.getfixturevalue('deit3'), 'backbone.layers.1.ln1', call, tokens
    return *build(name), 'shared', call, lambda output: output[0]


def test_ablation_is_plain_ablation_at_that_call(case):
    model, images, layer, call, to_map = case
    other, handle = unrolled(model, layer, call)
    results = CAM(['ablationcam'], targets=[3], layers=[layer])(model, images)
    for result, image in zip(results, images, strict=True):
        weights, a = naive_cam.ablation_weights(other, handle, image[None], 3, to_map)
        assert np.abs(weights).max() > 0
        expected = naive_cam.finish([naive_cam.weighted_sum(weights, a)], tuple(images.shape[2:]))
        np.testing.assert_allclose(result.maps[0].values, expected, atol=1e-5)


@pytest.mark.parametrize('method', ['gradcam', 'eigencam', 'scorecam', 'shapleycam', 'refinecam'])
def test_every_method_gives_what_it_gives_for_that_call_alone(case, method):
    model, images, layer, call, _ = case
    other, handle = unrolled(model, layer, call)
    found = CAM([method], targets=[3], layers=[layer])(model, images)
    expected = CAM([method], targets=[3], layers=[name_of(other, handle)])(other, images)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a.maps[0].values, b.maps[0].values, atol=1e-6)


def test_a_method_alone_looks_where_it_looks_in_company(case):
    model, images, layer, _, _ = case
    together = CAM(['gradcam', 'eigencam', 'ablationcam'], targets=[3], layers=[layer])(model, images)[0].maps
    for entry, name in zip(together, ['gradcam', 'eigencam', 'ablationcam'], strict=True):
        alone = CAM([name], targets=[3], layers=[layer])(model, images)[0].maps[0]
        np.testing.assert_allclose(alone.values, entry.values, atol=1e-9)
