import pytest
import torch
from torch import nn

from vistool.errors import InputError
from vistool.layers import default_layers, find_layer


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
    with pytest.raises(InputError, match='no layer .*--preview-model'):
        find_layer(net, name)


def test_close_matches_are_listed(net):
    with pytest.raises(InputError, match=r'did you mean backbone\.layer4'):
        find_layer(net, 'backbone.layer5')


def mm(name, **backbone):
    from mmpretrain import get_model

    return get_model(name, **({'backbone': backbone} if backbone else {}))


def timm_model(name):
    import timm

    return timm.create_model(name)


@pytest.mark.parametrize(
    ('make', 'layer'),
    [
        (lambda: mm('resnet18_8xb32_in1k'), 'backbone.layer4'),
        (lambda: mm('efficientnet-b0_3rdparty_8xb32_in1k'), 'backbone.layers.6'),
        (lambda: mm('mobilenet-v2_8xb32_in1k'), 'backbone.conv2'),
        (lambda: mm('mobilenet-v3-large_8xb128_in1k'), 'backbone.layer16'),
        (lambda: mm('repvgg-A0_8xb32_in1k'), 'backbone.stage_4'),
        (lambda: mm('convnext-tiny_32xb128_in1k'), 'backbone.stages.3'),
        (lambda: mm('deit-tiny_4xb256_in1k'), 'backbone.layers.11.ln1'),
        (lambda: mm('t2t-vit-t-14_8xb64_in1k'), 'backbone.encoder.13.ln1'),
        (lambda: mm('swin-tiny_16xb64_in1k'), 'backbone.norm3'),
        (lambda: timm_model('vit_tiny_patch16_224'), 'blocks.11.norm1'),
        (lambda: timm_model('tf_efficientnet_lite0'), 'bn2'),
        (lambda: timm_model('resnet18'), 'layer4'),
    ],
)
def test_default_layers(make, layer):
    with torch.device('cpu'):
        assert default_layers(make()) == [layer]


def test_an_unknown_network_has_no_default(net):
    assert default_layers(net) == []
