import pytest
import torch
from torch import nn

import vistool as vt
from vistool.errors import InputError
from vistool.network.layers import default_layers, find_layer, network_name


@pytest.fixture
def net():
    torch.manual_seed(0)
    root = nn.Module()
    root.backbone = nn.Module()
    root.backbone.layer4 = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU())
    root.backbone.blocks = nn.ModuleList([nn.LayerNorm(4), nn.LayerNorm(4)])
    root.head = nn.Linear(4, 2)
    return root


@pytest.mark.parametrize(
    ('name', 'canonical'),
    [
        ('backbone.layer4.2', 'backbone.layer4.2'),
        ('backbone.layer4[2]', 'backbone.layer4.2'),
        ('backbone.layer4[-1]', 'backbone.layer4.2'),
        ('backbone.layer4.-1', 'backbone.layer4.2'),
        ('backbone.blocks[-2]', 'backbone.blocks.0'),
        (' backbone ', 'backbone'),
    ],
)
def test_names(net, name, canonical):
    found, module = find_layer(net, name)
    assert found == canonical and module is net.get_submodule(canonical)


@pytest.mark.parametrize(
    'name', ['backbone.layer5', 'backbone.layer4[3]', 'backbone.layer4[-4]', 'head.fc', '', 'nope']
)
def test_unknown_names_are_told_with_what_there_is(net, name):
    with pytest.raises(InputError, match='no layer .*preview_model'):
        find_layer(net, name)


def test_close_matches_are_listed(net):
    with pytest.raises(InputError, match=r'did you mean backbone\.layer4'):
        find_layer(net, 'backbone.layer5')


@pytest.mark.slow
@pytest.mark.parametrize(
    ('name', 'layer'),
    [
        ('resnet18_8xb32_in1k', 'backbone.layer4'),
        ('mobilenet-v3-large_8xb128_in1k', 'backbone.layer16'),
        ('repvgg-A0_8xb32_in1k', 'backbone.stage_4'),
        ('convnext-tiny_32xb128_in1k', 'backbone.stages.3'),
        ('deit-tiny_4xb256_in1k', 'backbone.layers.11.ln1'),
        ('t2t-vit-t-14_8xb64_in1k', 'backbone.encoder.13.ln1'),
        ('swin-tiny_16xb64_in1k', 'backbone.norm3'),
        ('beit-base-p16_beit-in21k-pre_3rdparty_in1k', 'backbone.layers.11'),
        ('vit-base-p16_mae-1600e-pre_8xb128-coslr-100e_in1k', 'backbone.layers.11'),
    ],
)
def test_default_layers_of_networks_at_their_full_size(name, layer):
    from mmpretrain import get_model

    assert default_layers(get_model(name)) == [layer]


def test_an_unknown_network_has_no_default(net):
    assert default_layers(net) == []


@pytest.mark.parametrize(
    ('spec', 'name'),
    [
        ('timm::resnet18', 'resnet18'),
        ('torchvision::squeezenet1_1', 'SqueezeNet'),
        ('configs/mobilenet_v3/mobilenet-v3-large_8xb32_in1k.py', 'MobileNetV3'),
    ],
)
def test_a_network_is_called_by_what_it_is_not_by_its_wrapper(spec, name):
    assert network_name(vt.load(spec, 'none').module) == name
    assert network_name(nn.Conv2d(3, 3, 1)) == 'Conv2d'


def test_measured_layers_are_measured_once_and_told_as_such(monkeypatch, caplog):
    model = vt.load('timm::resnet18', 'none')
    monkeypatch.setattr('vistool.network.layers.DEFAULT_LAYERS', {})
    runs = []
    model.module.register_forward_pre_hook(lambda *args: runs.append(1))
    for _ in range(2):
        result = vt.CAM(['eigencam'])(model, torch.randn(3, 64, 64))
    assert result.provenance['layers'] == ['model.layer4'] and len(runs) == 3
    assert 'target layer: model.layer4 (found by layer search, as resnet18 is not in the table' in caplog.text
    assert '(the default for this network)' not in caplog.text


@pytest.mark.parametrize('layers', [3, [3], ['0', None]])
def test_layers_that_are_neither_names_nor_modules_are_refused(layers):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 14 * 14, 3))
    with pytest.raises(InputError, match='does not name layers; accepted: names of layers, or modules'):
        vt.CAM(layers=layers)(network, torch.randn(1, 3, 16, 16))
