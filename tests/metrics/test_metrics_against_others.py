"""The named protocols against the implementations that they are named after, on tiny networks."""

from contextlib import nullcontext
from dataclasses import replace

import naive_metrics
import numpy as np
import pytest
import torch
from pytorch_grad_cam.metrics import cam_mult_image, road
from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget
from torch import nn

import vistool as vt
from vistool.metrics import Case, Network, evaluate, find_metrics, find_protocol


def tiny(side):
    torch.manual_seed(side)
    layers = [nn.Conv2d(3, 6, 5, 4), nn.ReLU(), nn.Conv2d(6, 6, 3, 2), nn.Tanh(), nn.AdaptiveAvgPool2d(2), nn.Flatten()]
    network = nn.Sequential(*layers, nn.Linear(24, 3)).eval()
    with torch.no_grad():
        network[-1].weight *= 8
    return network


def measured(network, images, maps, classes, protocol, names):
    protocol = find_protocol(protocol) if isinstance(protocol, str) else protocol
    found = []
    for image, values, target in zip(images, maps, classes, strict=True):
        scorers = [lambda output, count, target=target: output.softmax(1)[:, target]]
        work = Network(network, image[None], scorers, 7)
        (each,) = evaluate([(Case(values, image, protocol), 0)], find_metrics(names, protocol), work)
        found.append([each[name].value for name in names])
    return np.array(found).T


@pytest.fixture(params=[32, 45])
def setting(request):
    side = request.param
    network = tiny(side)
    images = torch.randn(3, 3, side, side + 3)
    maps = torch.rand(3, side, side + 3)
    maps[1] = (maps[1] * 4).round() / 4  # many ties
    return network, images, maps / maps.amax((1, 2), keepdim=True), [0, 2, 1]


def test_protocol_gradcam(setting, monkeypatch):
    monkeypatch.setattr(road.torch, 'randn_like', torch.zeros_like)  # its noise comes from the global generator
    network, images, maps, classes = setting
    targets = [ClassifierOutputSoftmaxTarget(target) for target in classes]
    protocol = replace(find_protocol('gradcam'), noise=0.0)
    found = measured(network, images, maps, classes, protocol, ['road', 'drop', 'increase'])
    theirs = [
        kind()(images, maps.numpy(), targets, network)
        for kind in (road.ROADCombined, cam_mult_image.DropInConfidence, cam_mult_image.IncreaseInConfidence)
    ]
    np.testing.assert_allclose(found, theirs, atol=1e-5)
    assert np.abs(found[0]).max() > 1e-3


class Extractor:
    """What torch-cam's metrics ask of an extractor: maps that are made already."""

    def __init__(self, model, maps):
        self.model, self.maps = model, maps

    def __call__(self, *args, **kwargs):
        return [self.maps]

    def fuse_cams(self, cams):
        return cams[0]

    def _hooks_off(self):
        return nullcontext()


def test_protocol_torchcam(setting):
    network, images, maps, classes = setting
    torchcam = pytest.importorskip('torchcam.metrics', reason='torch-cam 0.5 needs Python 3.11')
    names = {'avg_drop': 'drop', 'conf_increase': 'increase', 'insertion_auc': 'insertion', 'deletion_auc': 'deletion'}
    theirs = {}
    for kind in (torchcam.ClassificationMetric, torchcam.DeletionInsertionMetric):
        metric = kind(Extractor(network, maps), lambda output: output.softmax(-1))
        metric.update(images, classes)
        theirs |= metric.summary()
    found = measured(network, images, maps, classes, 'torchcam', list(names.values())).mean(1)
    np.testing.assert_allclose(found, [theirs[name] for name in names], atol=1e-5)


def test_protocol_rise_at_the_size_that_it_was_published_for():
    network, image = tiny(7), torch.randn(1, 3, 224, 224)
    values = torch.rand(224, 224)
    found = measured(network, image, values[None], [1], 'rise', ['insertion', 'deletion'])[:, 0]
    with torch.no_grad():
        theirs = [
            naive_metrics.rise(network, image, values.numpy(), 1, mode, 224 * 8) for mode in ('insertion', 'deletion')
        ]
    np.testing.assert_allclose(found, theirs, atol=1e-5)


def deletion_curve(network, image, values, target, protocol):
    work = Network(network, image, [lambda output, count: output.softmax(1)[:, target]])
    case = Case(torch.as_tensor(values), image[0], protocol)
    return evaluate([(case, 0)], find_metrics(['deletion'], protocol), work)[0]['deletion'].curves['deletion']


def test_protocol_quantus_where_its_steps_are_whole_pixels():
    """Against a copy of its code: the package is heavy, and its area needs NumPy's trapz, which NumPy 2.4 has not."""
    network, image = tiny(32), torch.randn(1, 3, 30, 36)
    values = np.random.default_rng(0).permutation(30 * 36).reshape(30, 36).astype(np.float32) / 1080
    protocol = replace(find_protocol('quantus'), steps=30)
    curve = deletion_curve(network, image, values, 1, protocol)
    with torch.no_grad():
        theirs = naive_metrics.quantus_pixel_flipping(network, image, values, 1, 3 * 36)
    np.testing.assert_allclose(curve.scores[1:], theirs, atol=1e-5)
    assert np.ptp(theirs) > 1e-3


def test_quantus_takes_pixels_apart_at_ties_and_calls_the_smallest_value_black():
    network, image = tiny(32), torch.randn(1, 3, 30, 36)
    image[0, 0] += 5  # red is bright everywhere
    seen = []
    watched = lambda x: seen.append(x.clone()) or network(x)  # noqa: E731
    with torch.no_grad():
        theirs = naive_metrics.quantus_pixel_flipping(watched, image, np.ones((30, 36)), 1, 3 * 36)
    first = (seen[0] != image)[0]
    assert int(first.sum()) == 3 * 36 and not first.all(0).any()  # colors of many pixels, not one whole pixel
    assert seen[-1].unique().tolist() == [float(image.min())]  # its black is a blue or a green, not (0, 0, 0)
    ours = deletion_curve(network, image, np.ones((30, 36), np.float32), 1, replace(find_protocol('quantus'), steps=30))
    assert np.abs(ours.scores[1:] - theirs).max() > 1e-3


def test_on_a_constant_map_gradcam_removes_everything():
    """Upstream's threshold removes every pixel of a constant map at every percentile; ours says how much it was."""
    mask = torch.ones(8, 8)
    seen = []
    remove = road.RemoveMostRelevantFirst(90, lambda image, kept: seen.append(float(kept.mean())) or image)
    remove(torch.randn(3, 8, 8), mask)
    assert seen == [0.0]
    network, image = tiny(32), torch.randn(3, 32, 32)
    for protocol, removed in (('gradcam', [1.0] * 9), ('vistool', [0.125, 0.1875])):
        case = Case(torch.ones(32, 32), image, find_protocol(protocol))
        work = Network(network, image[None], [lambda output, count: output.softmax(1)[:, 0]])
        curve = evaluate([(case, 0)], find_metrics(['road']), work)[0]['road'].curves['road most relevant']
        assert curve.fractions.tolist()[: len(removed)] == removed


DEMO = ['efficientnet_lite/efficientnet-lite0_in1k', 'mobilenet_v2/mobilenet-v2_8xb32_in1k']


@pytest.fixture(scope='module', params=DEMO)
def demo(request):
    """A network with real weights, a photo as it gets it, and its GradCAM and LayerCAM for the predicted class."""
    model = vt.load(f'configs/{request.param}.py')
    sample = model.read('demo/coffee.png')
    image = model.batch([sample])
    result = vt.CAM(['gradcam', 'layercam'])(model, sample)
    maps = torch.from_numpy(np.stack([each.values for each in result.maps]))
    return model.module, image.repeat(2, 1, 1, 1), maps, [result.targets[0].id] * 2


@pytest.mark.slow
def test_protocol_gradcam_on_the_demo_networks(demo, monkeypatch):
    monkeypatch.setattr(road.torch, 'randn_like', torch.zeros_like)
    network, images, maps, classes = demo
    targets = [ClassifierOutputSoftmaxTarget(target) for target in classes]
    protocol = replace(find_protocol('gradcam'), noise=0.0, percent=(30, 70))
    found = measured(network, images, maps, classes, protocol, ['road', 'drop', 'increase'])
    theirs = [
        kind(images, maps.numpy(), targets, network)
        for kind in (
            road.ROADCombined([30, 70]),
            cam_mult_image.DropInConfidence(),
            cam_mult_image.IncreaseInConfidence(),
        )
    ]
    np.testing.assert_allclose(found, theirs, atol=1e-5)
    assert np.abs(found[0]).max() > 1e-2


@pytest.mark.slow
def test_protocol_torchcam_on_the_demo_networks(demo):
    network, images, maps, classes = demo
    test_protocol_torchcam((network, images, maps, classes))


@pytest.mark.slow
def test_protocols_rise_and_quantus_on_the_demo_networks(demo):
    network, images, maps, classes = demo
    apart = (maps[0].flatten().argsort(stable=True).argsort() / maps[0].numel()).view_as(maps[0])  # without ties
    found = measured(network, images[:1], apart[None], classes[:1], 'rise', ['insertion', 'deletion'])[:, 0]
    with torch.no_grad():
        theirs = [
            naive_metrics.rise(network, images[:1], apart.numpy(), classes[0], mode, 224 * 8)
            for mode in ('insertion', 'deletion')
        ]
    np.testing.assert_allclose(found, theirs, atol=1e-5)
    image = torch.nn.functional.interpolate(images[:1], (240, 240), mode='bicubic')  # steps of 1,920 whole pixels
    values = torch.nn.functional.interpolate(maps[None, :1], (240, 240), mode='bicubic')[0, 0]
    ranks = values.flatten().argsort(stable=True).argsort().view(240, 240).numpy() / 240**2  # without ties
    curve = deletion_curve(network, image, ranks, classes[0], replace(find_protocol('quantus'), steps=30))
    with torch.no_grad():
        theirs = naive_metrics.quantus_pixel_flipping(network, image, ranks, classes[0], 3 * 1920)
    np.testing.assert_allclose(curve.scores[1:], theirs, atol=1e-5)
    assert np.ptp(theirs) > 1e-2
