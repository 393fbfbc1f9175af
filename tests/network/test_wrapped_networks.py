"""Networks that are compiled, wrapped, checkpointed, scripted or without values: the same maps, or one line."""

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

import vistool as vt

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """Two convolutions, checkpointed or not in the ways that users write."""

    def __init__(self, way='plain'):
        super().__init__()
        torch.manual_seed(1)
        self.way = way
        self.a = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU())
        self.b = nn.Sequential(nn.Conv2d(8, 8, 3), nn.ReLU(inplace=True))
        self.fc = nn.Linear(8, 4)

    def forward(self, x):
        if self.way == 'sequential':
            x = checkpoint_sequential(nn.Sequential(self.a, self.b), 2, x, use_reentrant=False)
        elif self.way == 'plain':
            x = self.b(self.a(x))
        else:
            x = checkpoint(self.b, checkpoint(self.a, x, use_reentrant=self.way), use_reentrant=self.way)
        return self.fc(x.mean((2, 3)))


class InInferenceMode(Net):
    """A forward that users decorate so that nobody differentiates it by mistake."""

    forward = torch.inference_mode()(Net.forward)


def values(analysis, network, images=IMAGES):
    return [entry.values for result in analysis(network, images) for entry in result.maps]


def assert_same(one, other):
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize('way', [True, False, 'sequential'])
@pytest.mark.parametrize('methods', ['gradcam', 'ablationcam', 'shapleycam'])
def test_checkpoints_of_a_users_own_change_nothing(way, methods):
    cam = vt.CAM(methods, layers='b', targets=[1])
    assert_same(values(cam, Net(way)), values(cam, Net()))


@pytest.mark.parametrize('analysis', [vt.CAM('gradcam'), vt.CAM('scorecam', layers='b'), vt.FeatureMaps()], ids=repr)
def test_inference_mode_inside_a_network_changes_nothing(analysis):
    network = InInferenceMode()
    assert_same(values(analysis, network), values(analysis, Net()))
    assert network(IMAGES).is_inference()


@pytest.mark.parametrize('method', ['legrad', 'grad-rollout', 'rollout'])
def test_checkpoints_of_timm_change_nothing(method):
    torch.manual_seed(0)
    network = timm.create_model('test_vit', img_size=32, num_classes=5)
    plain = values(vt.Attention(method), network)
    network.set_grad_checkpointing(True)
    assert_same(values(vt.Attention(method), network), plain)
    assert network.grad_checkpointing


def test_checkpoints_of_hugging_face_change_nothing():
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16, image_size=32, patch_size=8
    )
    torch.manual_seed(0)
    network = ViTForImageClassification(config)
    plain = values(vt.Attention('legrad'), network)
    network.gradient_checkpointing_enable()
    network.train()
    assert_same(values(vt.Attention('legrad'), network), plain)
    assert network.is_gradient_checkpointing and network.training


def test_checkpoints_work_as_before_afterwards_and_in_other_threads():
    before = torch.utils.checkpoint.CheckpointFunction
    network, runs = Net(True), []
    network.a.register_forward_hook(lambda *args: runs.append(None))
    values(vt.CAM(layers='b'), network)
    assert torch.utils.checkpoint.CheckpointFunction is before and len(runs) == 1
    network.train()
    network(IMAGES.clone().requires_grad_()).sum().backward()
    assert len(runs) == 3  # once forward, once again for the backward


WRAPPERS = {
    'compiled': torch.compile,
    'data parallel': nn.DataParallel,
    'compiled data parallel': lambda network: torch.compile(nn.DataParallel(network)),
}


@pytest.mark.parametrize('wrapper', WRAPPERS)
@pytest.mark.parametrize('layer', ['b', 'module.b', '_orig_mod.b', 'b[0]'])
def test_layers_of_a_wrapped_network_have_their_own_names(wrapper, layer):
    network = Net()
    wrapped = WRAPPERS[wrapper](network)
    name = 'b.0' if layer == 'b[0]' else 'b'
    for analysis in (vt.CAM(layers=layer), vt.FeatureMaps(layers=layer)):
        found = analysis(wrapped, IMAGES)
        assert found[0].maps[0].coordinates['layer'] == name
        assert_same([r.maps[0].values for r in found], values(type(analysis)(layers=name), network))


def test_wrappers_inside_a_network_have_no_names_either():
    outer = nn.Sequential()
    outer.net, outer.twin = torch.compile(Net()), nn.Identity()
    parts = dict(outer._modules)
    for layer in ('net.b', 'net._orig_mod.b', outer.net._orig_mod.b):
        found = vt.CAM(layers=layer)(outer, IMAGES)
        assert found[0].layers == ('net.b',)
        assert_same([r.maps[0].values for r in found], values(vt.CAM(layers='b'), Net()))
    assert outer._modules == parts


def test_a_network_compiled_in_place_runs_its_layers_in_python():
    network = Net()
    network.compile()
    call = network._compiled_call_impl
    assert_same(values(vt.CAM(layers='b'), network), values(vt.CAM(layers='b'), Net()))
    assert network._compiled_call_impl is call


@pytest.mark.parametrize('method', ['gradcam', 'eigencam', 'ablationcam'])
def test_weights_made_in_inference_mode_give_maps(method):
    with torch.inference_mode():
        network = Net()
        images = IMAGES.clone()
    weights = [(id(p), p.requires_grad) for p in (*network.parameters(), *network.buffers())]
    cam = vt.CAM(method, layers='b', targets=[1])
    assert_same(values(cam, network, images), values(cam, Net()))
    assert [(id(p), p.requires_grad) for p in (*network.parameters(), *network.buffers())] == weights


ANALYSES = {'cam': vt.CAM(), 'features': vt.FeatureMaps(), 'attention': vt.Attention(), 'patches': vt.Patches()}


class Functional(nn.Module):
    """Parameters and functions only."""

    def __init__(self):
        super().__init__()
        self.kernel, self.weight = nn.Parameter(torch.randn(4, 3, 3, 3)), nn.Parameter(torch.randn(5, 4))

    def forward(self, x):
        return F.linear(F.conv2d(x, self.kernel).relu().mean((2, 3)), self.weight)


def exported():
    return torch.export.export(Net().eval(), (IMAGES,))


UNWATCHABLE = {
    'traced': (lambda: torch.jit.trace(Net().eval(), IMAGES), 'TorchScript.*nn.Module that it was made from'),
    'scripted': (lambda: torch.jit.script(Net().b), 'TorchScript.*nn.Module that it was made from'),
    'exported': (exported, 'ExportedProgram.*nn.Module that it was made from'),
    'exported module': (lambda: exported().module(), 'torch.export.*nn.Module that it was made from'),
    'no values': (lambda: Net().to('meta'), 'Net are on the meta device.*load its weights first'),
    'a class': (lambda: Net, r'Net is a class, not a network; create it: Net\('),
    'a function': (lambda: lambda x: x, 'not a network'),
}


@pytest.mark.parametrize('analysis', ANALYSES)
@pytest.mark.parametrize('kind', UNWATCHABLE)
def test_what_cannot_be_watched_is_refused_in_one_line(kind, analysis):
    make, message = UNWATCHABLE[kind]
    with pytest.raises(vt.InputError, match=message):
        ANALYSES[analysis](make(), IMAGES)


@pytest.mark.parametrize('analysis', ['cam', 'features'])
def test_a_network_of_functions_has_no_layers(analysis):
    with pytest.raises(vt.InputError, match='Functional holds no modules: it calls functions only'):
        ANALYSES[analysis](Functional(), IMAGES)


def test_a_scripted_part_is_a_layer():
    network = Net()
    plain = values(vt.CAM(layers='b'), network)
    network.b = torch.jit.script(network.b)
    part = network.b
    assert_same(values(vt.CAM(layers='b'), network), plain)
    assert network.b is part
    with pytest.raises(vt.InputError, match='cuts no patches'):
        vt.Patches()(network, IMAGES)


@pytest.mark.parametrize('analysis', ['cam', 'features'])
def test_a_network_whose_maps_are_inside_a_scripted_part_says_so(analysis):
    network = nn.Sequential(torch.jit.script(nn.Sequential(Net().a, nn.AdaptiveAvgPool2d(1), nn.Flatten())))
    with pytest.raises(vt.InputError, match='0 is TorchScript, inside which nothing can be watched'):
        ANALYSES[analysis](network.append(nn.Linear(8, 3)), IMAGES)


@pytest.fixture(scope='module')
def int8():
    """A network whose convolutions are int8, and one whose linear layers are."""
    from torch.ao import quantization

    network = nn.Sequential(quantization.QuantStub(), *Net().b, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))
    network.append(quantization.DeQuantStub()).eval()
    network.qconfig = quantization.get_default_qconfig('x86')
    prepared = quantization.prepare(network)
    images = torch.randn(2, 8, 16, 16)
    prepared(images)
    return quantization.convert(prepared), images, quantization.quantize_dynamic(Net().eval(), {nn.Linear})


def test_int8_layers_have_no_gradient(int8):
    static, images, dynamic = int8
    for network, layer, given in ((static, '2', images), (dynamic, 'b', IMAGES)):
        with pytest.raises(vt.InputError, match='int8 layers have no gradient.*use EigenCAM'):
            vt.CAM(layers=layer)(network, given)
        found = vt.CAM('eigencam', layers=layer)(network, given)
        assert len(found) == 2 and np.ptp(found[0].maps[0].values) > 0
