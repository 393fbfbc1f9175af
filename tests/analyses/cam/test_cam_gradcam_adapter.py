"""The methods that pytorch-grad-cam computes for us, each against its paper, on networks it does not take by itself."""

import naive_cam
import numpy as np
import pytest
import timm
import torch
from torch import nn

from vistool import CAM
from vistool.errors import InputError


class Small(nn.Module):
    """Two convolutions, the second in a tuple, a curved head, in-place operations behind the layer."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.AvgPool2d(2))
        self.features[1].running_mean.normal_()
        self.conv = nn.Conv2d(6, 5, 3, padding=1)
        self.fc = nn.Linear(5, 4)

    def head(self, x):
        return self.fc((x.clone().mul_(1.0) ** 2).tanh().mean((2, 3)))

    def forward(self, x):
        return self.head(self.conv(self.features(x)))


@pytest.fixture
def small():
    torch.manual_seed(2)
    return Small().double().eval(), torch.randn(2, 3, 12, 16, dtype=torch.float64)


def test_scorecam(small):
    model, inputs = small
    results = CAM(['scorecam'], targets=[1], layers=['conv'])(model, inputs)
    for result, image in zip(results, inputs, strict=True):
        with torch.no_grad():
            a = model.conv(model.features(image[None]))[0].numpy()
            expected = naive_cam.finish([naive_cam.scorecam(model, a, image[None], 1)], (12, 16))
        np.testing.assert_allclose(result.maps[0].values, expected, atol=1e-4)


def test_shapleycam(small):
    model, inputs = small
    results = CAM(['shapleycam'], targets=[1], layers=['conv'])(model, inputs)
    for result, image in zip(results, inputs, strict=True):
        with torch.no_grad():
            a = model.conv(model.features(image[None]))[0].numpy()
        signed = naive_cam.shapleycam(a, lambda values: model.head(values)[0, 1])
        np.testing.assert_allclose(result.maps[0].values, naive_cam.finish([signed], (12, 16)), atol=1e-4)


def test_shapleycam_of_tokens():
    torch.manual_seed(2)
    model = timm.models.VisionTransformer(img_size=(16, 24), patch_size=8, embed_dim=16, depth=2, num_heads=2)
    model = model.double().eval()
    image = torch.randn(1, 3, 16, 24, dtype=torch.float64)
    kept = {}
    layer = model.blocks[1].norm1
    naive_cam.with_output(model, layer, image, lambda output: kept.update(a=output.detach()))
    prefix = kept['a'][:, :1]
    a = kept['a'][0, 1:].T.unflatten(1, (2, 3)).numpy()

    def score(values):
        tokens = torch.cat([prefix, values.flatten(2).transpose(1, 2)], 1)
        handle = layer.register_forward_hook(lambda module, args, output: tokens)
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            result = model(image)[0, 7]
        handle.remove()
        return result

    result = CAM(['shapleycam'], targets=[7], layers=['blocks.1.norm1'])(model, image)[0]
    expected = naive_cam.finish([naive_cam.shapleycam(a, score)], (16, 24))
    np.testing.assert_allclose(result.maps[0].values, expected, atol=1e-4)


def test_shapleycam_is_gradcam_where_the_score_is_linear_in_the_layer():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    )
    inputs = torch.randn(1, 3, 9, 9)
    shapley, grad = CAM(['shapleycam', 'gradcam'], targets=[1], layers=['1'])(model, inputs)[0].maps
    np.testing.assert_allclose(shapley.values, grad.values, atol=1e-5)


def test_fullgrad(small):
    model, inputs = small
    results = CAM(['fullgrad'], targets=[1])(model, inputs)
    for result, image in zip(results, inputs, strict=True):
        total = naive_cam.fullgrad(model, image[None], 1, [model.features[0], model.features[1], model.conv])
        np.testing.assert_allclose(result.maps[0].values, naive_cam.minmax(total), atol=1e-4)


def test_refinecam(small):
    model, inputs = small
    results = CAM(['refinecam'], targets=[1], layers=['features', 'conv'])(model, inputs)
    for result, image in zip(results, inputs, strict=True):
        a = model.features(image[None])
        b = model.conv(a)
        gradients = torch.autograd.grad(model.head(b)[0, 1], [a, b])
        layers = [(x[0].detach().numpy(), g[0].numpy()) for x, g in zip((a, b), gradients, strict=True)]
        np.testing.assert_allclose(result.maps[0].values, naive_cam.refinecam(layers, (12, 16)), atol=1e-4)
        assert len(result.maps) == 1


@pytest.mark.parametrize('name', ['scorecam', 'shapleycam', 'fullgrad', 'refinecam'])
def test_the_model_is_left_as_it_was(small, name, capfd):
    model, inputs = small
    model.train()
    model.fc.weight.requires_grad_(False)
    model.conv.weight.grad = torch.ones_like(model.conv.weight)
    hooks = sum(len(module._forward_hooks) for module in model.modules())
    running = model.features[1].running_mean.clone()
    CAM([name], layers=['features', 'conv'], eigen_smooth=True)(model, inputs)
    assert all(module.training for module in model.modules())
    assert not model.fc.weight.requires_grad and model.fc.bias.requires_grad
    assert (model.conv.weight.grad == 1).all() and model.fc.bias.grad is None
    assert sum(len(module._forward_hooks) for module in model.modules()) == hooks
    assert torch.equal(model.features[1].running_mean, running)
    assert capfd.readouterr() == ('', '')


def test_what_pytorch_grad_cam_cannot_do_is_an_error_that_names_what_works(small):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Small()

        def forward(self, image, other):
            return self.inner(image + other)

    tensor = torch.randn(1, 3, 8, 8)
    with pytest.raises(InputError, match=r'ScoreCAM takes networks with a single input; accepted: GradCAM, .*FinerCAM'):
        CAM(['scorecam'], layers=['inner.conv'])(Two(), (tensor, tensor))

    class Backwards(Small):
        def __init__(self):
            super().__init__()
            self.last, self.first = nn.Conv2d(5, 5, 1), nn.Conv2d(3, 3, 1)

        def forward(self, x):
            return self.head(self.last(self.conv(self.features(self.first(x)))))

    with pytest.raises(InputError, match=r'FullGrad .* run in another order .*accepted: GradCAM'):
        CAM(['fullgrad'])(Backwards(), tensor)
