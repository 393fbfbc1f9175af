"""AblationCAM: the tail alone gives what the whole network gives, whatever the network does around the layer."""

import logging

import naive_cam
import numpy as np
import pytest
import timm
import torch
from torch import nn

from vistool import CAM
from vistool.analyses.cam import perturbation as ablation


class Residual(nn.Module):
    """A residual network with in-place ReLUs, functional steps, and one activation module used in two places."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.BatchNorm2d(6))
        self.relu = nn.ReLU(inplace=True)
        self.conv1, self.conv2 = nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.fc = nn.Linear(6, 5)
        self.runs = 0
        self.stem.register_forward_hook(lambda *args: setattr(self, 'runs', self.runs + 1))

    def join(self, out, identity):
        out += identity
        return out

    def forward(self, x):
        self.batch = len(x)
        identity = self.relu(self.stem(x))
        out = self.relu(self.conv1(identity))
        return self.fc(self.relu(self.join(self.conv2(out), identity)).mean((2, 3)))


class Concatenating(Residual):
    def join(self, out, identity):
        return torch.cat([out, identity], 1)[:, ::2]


class ForgetfulOfWhatItReturns(Residual):
    """Uses a module for what it does to its input in place, which playing it back leaves out."""

    def forward(self, x):
        identity = self.stem(x)
        self.relu(identity)
        out = self.relu(self.conv1(identity))
        return self.fc((self.conv2(out) + identity).mean((2, 3)))


class MixingRows(Residual):
    """Takes the batch size from before the layer."""

    def join(self, out, identity):
        return (out + identity).reshape(len(identity), 6, -1, 1)


class Repeated(Residual):
    """Runs the layer twice; the last call counts."""

    def forward(self, x):
        out = self.relu(self.stem(x))
        for _ in range(2):
            out = self.conv2(self.relu(self.conv1(out)))
        return self.fc(self.relu(out).mean((2, 3)))


class TupleOutput(Residual):
    def __init__(self):
        super().__init__()
        self.inner, self.conv1 = self.conv1, nn.Identity()
        self.pair = Pair(self.inner)

    def forward(self, x):
        maps, size = self.pair(self.relu(self.stem(x)))
        assert size == tuple(maps.shape[2:])
        return self.fc(self.relu(self.conv2(maps)).mean((2, 3)))


class Pair(nn.Module):
    def __init__(self, conv):
        super().__init__()
        self.conv = conv

    def forward(self, x):
        x = self.conv(x)
        return x, tuple(x.shape[2:])


def build(kind):
    torch.manual_seed(1)
    model = kind().double().eval()
    return model, torch.randn(2, 3, 12, 16, dtype=torch.float64)


def vit():
    torch.manual_seed(1)
    model = timm.models.VisionTransformer(
        img_size=(32, 48), patch_size=8, embed_dim=24, depth=3, num_heads=2, num_classes=5
    )
    return model.double().eval(), torch.randn(2, 3, 32, 48, dtype=torch.float64)


def check(model, inputs, layer, to_map):
    results = CAM(['ablationcam'], targets=[3], layers=[layer])(model, inputs)
    for result, image in zip(results, inputs, strict=True):
        weights, a = naive_cam.ablation_weights(model, model.get_submodule(layer), image[None], 3, to_map)
        signed = naive_cam.weighted_sum(weights, a)
        expected = naive_cam.finish([signed], tuple(inputs.shape[2:]))
        np.testing.assert_allclose(result.maps[0].values, expected, atol=1e-5)


FIRST = {'to_map': lambda output: output[0]}


@pytest.mark.parametrize('layer', ['stem', 'stem.1', 'conv1', 'conv2'])
def test_equals_plain_ablation_on_a_residual_network(layer):
    check(*build(Residual), layer, **FIRST)


@pytest.mark.parametrize('kind', [Concatenating, ForgetfulOfWhatItReturns, MixingRows])
def test_networks_whose_prefix_cannot_be_played_back_are_run_whole(kind, caplog):
    model, inputs = build(kind)
    with caplog.at_level(logging.INFO, 'vistool'):
        check(model, inputs, 'conv2', **FIRST)
    assert 'runs the whole network' in caplog.text


def test_equals_plain_ablation_where_the_layer_returns_a_tuple():
    model, inputs = build(TupleOutput)
    results = CAM(['ablationcam'], targets=[3], layers=['pair'])(model, inputs)
    weights, a = naive_cam.ablation_weights(model, model.inner, inputs[:1], 3, lambda output: output[0])
    expected = naive_cam.finish([naive_cam.weighted_sum(weights, a)], (12, 16))
    np.testing.assert_allclose(results[0].maps[0].values, expected, atol=1e-5)


def test_the_last_call_of_a_layer_counts():
    model, inputs = build(Repeated)
    results = CAM(['ablationcam'], targets=[3], layers=['conv2'])(model, inputs)

    class Unrolled(nn.Module):
        def __init__(self):
            super().__init__()
            self.last = nn.Identity()

        def forward(self, x):
            out = model.relu(model.stem(x))
            for _ in range(2):
                out = model.conv2(model.relu(model.conv1(out)))
            return model.fc(model.relu(self.last(out)).mean((2, 3)))

    unrolled = Unrolled()
    weights, a = naive_cam.ablation_weights(unrolled, unrolled.last, inputs[:1], 3, lambda output: output[0])
    expected = naive_cam.finish([naive_cam.weighted_sum(weights, a)], (12, 16))
    np.testing.assert_allclose(results[0].maps[0].values, expected, atol=1e-5)


@pytest.mark.parametrize('layer', ['blocks.2.norm1', 'blocks.1', 'blocks.0.mlp'])
def test_equals_plain_ablation_on_a_vit(layer):
    model, inputs = vit()
    # patch tokens lose the channel, the class token keeps it
    check(model, inputs, layer, lambda output: output[0, 1:].T.unflatten(1, (4, 6)))


def test_the_prefix_runs_once_and_nothing_is_left_behind(monkeypatch):
    model, inputs = build(Residual)
    hooks = {name: len(module._forward_hooks) for name, module in model.named_modules()}
    monkeypatch.setattr(ablation, 'BUDGET', 1)  # one copy at a time
    seen = []
    handle = model.stem[0].register_forward_pre_hook(lambda *args: seen.append(1))
    check_runs = CAM(['ablationcam'], targets=[3], layers=['conv2'])
    check_runs(model, inputs[:1])
    handle.remove()
    assert len(seen) == 2  # the forward that all methods share, and one recording
    assert {name: len(module._forward_hooks) for name, module in model.named_modules()} == hooks
    assert not any('forward' in module.__dict__ for module in model.modules())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    check(model, inputs, 'conv2', **FIRST)


def test_chunks_do_not_matter(monkeypatch):
    model, inputs = build(Residual)
    cam = CAM(['ablationcam'], targets=[3], layers=['conv1'])
    at_once = cam(model, inputs)[1].maps[0].values
    monkeypatch.setattr(ablation, 'MOST', 4)
    np.testing.assert_allclose(cam(model, inputs)[1].maps[0].values, at_once, atol=1e-9)
