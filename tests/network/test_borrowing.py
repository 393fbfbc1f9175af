"""A network is handed back as it was, whatever happens in between, and two threads do not meet in it."""

import contextlib
import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import timm
import torch
from torch import nn

import vistool as vt
from vistool.network.capture import borrowed, lock_of


class Stopped(Exception):
    """Stands for whatever goes wrong inside a network."""


class Fused(nn.Module):
    """A block that changes its weights when it changes its mode, as LeViT's do."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 1)
        self.fused = False

    def train(self, mode=True):
        super().train(mode)
        self.fused = not mode
        return self

    def forward(self, x):
        return self.conv(x)


class Twice(nn.Module):
    """Several heads, dropout, batch norm, a layer that runs twice and an in-place activation."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.block = Fused()
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(8, 5)

    def forward(self, x):
        x = self.block(self.block(self.stem(x)))
        return self.fc(self.drop(x.mean((2, 3))))


NETWORKS = {
    'own': (Twice, 'block', (2, 3, 12, 12)),
    'resnet': (lambda: timm.create_model('test_resnet', num_classes=5), 'layer3', (2, 3, 64, 64)),
    'vit': (lambda: timm.create_model('test_vit', img_size=64, num_classes=5), 'blocks.1.norm1', (2, 3, 64, 64)),
}
ANALYSES = {
    'cam': lambda layer: vt.CAM(['gradcam', 'eigencam', 'finercam'], layers=[layer]),
    'ablation': lambda layer: vt.CAM(['ablationcam'], layers=[layer]),
    'grad-cam package': lambda layer: vt.CAM(['shapleycam', 'fullgrad'], layers=[layer]),
    'features': lambda layer: vt.FeatureMaps(layers=[layer], stats=True),
    'stages': lambda layer: vt.FeatureMaps(),
    'raw attention': lambda layer: vt.Attention(stats=True),
    'rollout': lambda layer: vt.Attention('rollout'),
    'gradient rollout': lambda layer: vt.Attention('grad-rollout'),
    'legrad': lambda layer: vt.Attention('legrad'),
}


def build(name):
    """A network in training, some parts of it not, some weights frozen, gradients there, with a hook and a patch."""
    torch.manual_seed(0)
    make, layer, shape = NETWORKS[name]
    network = make()
    children = list(network.modules())
    network.train()
    children[len(children) // 2].eval()
    for index, parameter in enumerate(network.parameters()):
        parameter.requires_grad_(index % 3 != 1)
        parameter.grad = torch.full_like(parameter, index) if index % 3 == 0 else None
    network.get_submodule(layer).register_forward_hook(lambda *args: None)
    return network, layer, torch.randn(shape)


def state_of(network):
    """Everything about a network that an analysis could leave behind; weights by identity and by value."""
    hooks = ('_forward_hooks', '_forward_pre_hooks', '_backward_hooks', '_forward_hooks_with_kwargs')
    return {
        'modes': [child.training for child in network.modules()],
        'attributes': [{k: v for k, v in vars(child).items() if not k.startswith('_')} for child in network.modules()],
        'hooks': [[dict(getattr(child, name)) for name in hooks] for child in network.modules()],
        'parameters': [
            (id(p), p.data_ptr(), p.requires_grad, p.device, id(p.grad), p.detach().clone())
            for p in network.parameters()
        ],
        'gradients': [None if p.grad is None else p.grad.clone() for p in network.parameters()],
        'buffers': [(id(b), b.data_ptr(), b.clone()) for b in network.buffers()],
    }


def assert_same(before, after):
    def same(a, b):
        if isinstance(a, torch.Tensor):
            return isinstance(b, torch.Tensor) and torch.equal(a, b)
        if isinstance(a, dict):
            return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
        if isinstance(a, (tuple, list)):
            return len(a) == len(b) and all(map(same, a, b))
        return a is b or a == b

    for key in before:
        assert same(before[key], after[key]), key


@pytest.mark.parametrize('analysis', ANALYSES)
@pytest.mark.parametrize('name', NETWORKS)
def test_a_network_comes_back_as_it_was(name, analysis):
    network, layer, inputs = build(name)
    before = state_of(network)
    with torch.no_grad() if name == 'vit' else torch.enable_grad():
        # not every method fits every network; then too it comes back as it was
        with contextlib.suppress(vt.InputError):
            ANALYSES[analysis](layer)(network, inputs)
        assert torch.is_grad_enabled() == (name != 'vit')
    assert_same(before, state_of(network))


@pytest.mark.parametrize('analysis', ANALYSES)
@pytest.mark.parametrize('name', NETWORKS)
@pytest.mark.parametrize('call', [0, 1])
def test_a_network_comes_back_as_it_was_after_an_exception_inside_it(name, analysis, call):
    network, layer, inputs = build(name)
    calls = []

    def stop(*args):
        calls.append(None)
        if len(calls) > call:
            raise Stopped

    list(network.children())[-1].register_forward_hook(stop)
    before = state_of(network)
    with contextlib.suppress(Stopped, vt.InputError):
        ANALYSES[analysis](layer)(network, inputs)
    assert torch.is_grad_enabled()
    assert_same(before, state_of(network))


@pytest.mark.parametrize('name', NETWORKS)
def test_load_leaves_a_module_alone(name):
    network, layer, inputs = build(name)
    before = state_of(network)
    model = vt.load(network)
    assert_same(before, state_of(network))
    vt.CAM(layers=[layer])(model, inputs)
    assert model.module is network
    assert_same(before, state_of(network))


def test_a_module_that_is_half_in_training_is_explained_in_eval_mode():
    network, layer, inputs = build('own')
    found = vt.CAM(layers=[layer])(network, inputs)
    network.eval()
    network.block.conv.train()
    half = vt.CAM(layers=[layer])(network, inputs)
    assert network.block.conv.training and not network.training
    for a, b in zip(found, half, strict=True):
        assert np.array_equal(a.maps[0].values, b.maps[0].values)


def test_weights_made_in_inference_mode_come_back_too():
    with torch.inference_mode():
        network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    before = [parameter.requires_grad for parameter in network.parameters()]
    with borrowed(network):
        pass
    assert [parameter.requires_grad for parameter in network.parameters()] == before == [True, True]


def test_locks_are_one_for_each_network_and_go_with_it():
    network = nn.Linear(1, 1)
    assert lock_of(network) is lock_of(nn.DataParallel(network)) is lock_of(torch.compile(network))
    assert lock_of(nn.Linear(1, 1)) is not lock_of(network)
    gone = weakref.ref(network)
    del network
    gc.collect()
    torch.compiler.reset()
    gc.collect()
    assert gone() is None


def test_the_lock_is_held_while_a_network_is_borrowed():
    network, order = nn.Linear(1, 1), []

    def wait():
        with borrowed(network):
            order.append('second')

    with borrowed(network), borrowed(network):
        thread = threading.Thread(target=wait)
        thread.start()
        thread.join(0.05)
        order.append('first')
    thread.join()
    assert order == ['first', 'second']


def values_of(results):
    return [[entry.values for entry in result.maps] for result in results]


@pytest.mark.parametrize('name', ['resnet', 'vit'])
def test_threads_get_what_they_would_get_one_after_the_other(name):
    network, layer, inputs = build(name)
    kinds = [vt.CAM(['gradcam', 'eigencam', 'randomcam'], layers=[layer]), vt.FeatureMaps(layers=[layer])]
    kinds += [vt.FeatureMaps(), vt.CAM(['ablationcam'], layers=[layer], targets=[1])]
    kinds += [vt.Attention('raw'), vt.Attention('rollout'), vt.Attention('legrad')] if name == 'vit' else []
    before = state_of(network)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the sum of a product depends on how many share it
    try:
        alone = [values_of(kind(network, inputs)) for kind in kinds]
        with ThreadPoolExecutor(4) as pool:
            jobs = [
                (index, pool.submit(kinds[index], network, inputs)) for _ in range(3) for index in range(len(kinds))
            ]
            for index, job in jobs:
                for one, other in zip(values_of(job.result()), alone[index], strict=True):
                    assert all(map(np.array_equal, one, other))
    finally:
        torch.set_num_threads(threads)
    assert_same(before, state_of(network))


def test_threads_that_borrow_a_network_and_a_wrapper_around_it_do_not_meet():
    network, layer, inputs = build('own')
    around = nn.Sequential(network, nn.Softmax(1))
    before = state_of(network)
    pairs = [(vt.CAM(targets=[1], layers=[layer]), network), (vt.CAM(targets=[1], layers=[f'0.{layer}']), around)]
    pairs += [(vt.FeatureMaps(layers=[layer]), network), (vt.FeatureMaps(layers=[f'0.{layer}']), around)]
    alone = [values_of(kind(module, inputs)) for kind, module in pairs]
    with ThreadPoolExecutor(4) as pool:
        jobs = [
            (index, pool.submit(kind, module, inputs)) for _ in range(5) for index, (kind, module) in enumerate(pairs)
        ]
        for index, job in jobs:
            for one, other in zip(values_of(job.result()), alone[index], strict=True):
                assert all(np.allclose(a, b, atol=1e-5) for a, b in zip(one, other, strict=True))
    assert_same(before, state_of(network))


def test_patches_wait_for_a_network_that_is_borrowed():
    torch.manual_seed(0)
    network = timm.create_model('test_vit', img_size=64)
    network.train()
    inputs = torch.randn(1, 3, 64, 64)
    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(kind, network, inputs) for _ in range(4) for kind in (vt.Patches(), vt.Attention())]
        for job in jobs:
            job.result()
    assert all(module.training for module in network.modules())


@pytest.mark.parametrize('analysis', [vt.CAM(['gradcam', 'eigencam'], layers='0'), vt.FeatureMaps(layers=['0'])])
def test_the_callers_default_device_does_not_matter(analysis):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    images = torch.randn(2, 3, 16, 16)
    usual = analysis(network, images)
    try:
        torch.set_default_device('meta')
        found = analysis(network, images)
        assert torch.get_default_device() == torch.device('meta')
    finally:
        torch.set_default_device(None)
    for one, other in zip(usual, found, strict=True):
        for expected, given in zip(one.maps, other.maps, strict=True):
            np.testing.assert_array_equal(given.values, expected.values)
