"""Default layers and layouts on many families, without a flag: the layer, its grid, gradient and place."""

import pytest
import timm
import torch
import torchvision
from known_networks import CASES
from torch import nn

from vistool.analyses.cam import CAM
from vistool.errors import InputError
from vistool.network import forward as engine
from vistool.network.forward import layers_to_explain, search_layer
from vistool.network.layers import default_layers, find_call, network_name

CORNERS = {'top left': (0, 0), 'top right': (0, 1), 'bottom left': (1, 0), 'bottom right': (1, 1)}


@pytest.fixture(scope='module', params=CASES, ids=lambda case: case.name)
def network(request):
    return built(request.param)


@pytest.fixture
def networks():
    """By name."""
    return lambda name: built(next(case for case in CASES if case.name == name))


def built(case):
    torch.manual_seed(0)
    module = case.make()
    wake(module, case.size)
    return case, module, photo(case.size)[:1]


def wake(module, size):
    """Makes random weights behave as trained ones: nothing starts at zero, BatchNorm knows its inputs, what is near
    counts most.
    """
    for name, parameter in module.named_parameters():
        if name.endswith('attention_biases'):  # by distance, the first being none
            parameter.data[:, 0] = 1000
            continue
        if parameter.detach().abs().max() < 0.01 and not name.endswith('bias'):
            torch.nn.init.normal_(parameter, 1 if parameter.ndim == 1 else 0, 0.05)
    for child in module.modules():
        if isinstance(child, nn.Conv2d) and child.kernel_size[0] % 2 and child.kernel_size[0] > 1:
            middle = child.kernel_size[0] // 2
            centre = child.weight.data[:, :, middle, middle].clone()
            child.weight.data *= 0.1
            child.weight.data[:, :, middle, middle] = centre
    norms = [child for child in module.modules() if isinstance(child, nn.modules.batchnorm._BatchNorm)]
    module.eval()
    for norm in norms:
        norm.momentum = 1.0
        norm.train()
    with torch.no_grad():
        module(photo(size))
    for norm in norms:
        norm.eval()


def photo(size):
    """Two images of smooth noise, in which no patch equals the next or its mirror image."""
    generator = torch.Generator().manual_seed(1)
    coarse = torch.randn(2, 3, size[0] // 8, size[1] // 8, generator=generator)
    return nn.functional.interpolate(coarse, size=size, mode='bilinear')


def look(module, name, inputs):
    """The layer's map ``(B, C, h, w)``, its layout, and the gradient of the best score, laid out likewise."""
    name, layer = find_call(module, name)
    with engine.forward(module, inputs, {name: layer}, gradients=True) as run:
        (gradient,) = run.gradients(run.scores.amax(1).sum(), last=True)
    return run.layers[0].map(run.layers[0].value), run.layers[0].layout, run.layers[0].map(gradient)


def test_the_default_layer_is_the_named_one(network):
    case, module, _ = network
    assert default_layers(module) == [case.layer]


def test_its_map_has_the_inputs_grid_and_the_score_depends_on_it(network):
    case, module, image = network
    maps, layout, gradient = look(module, case.layer, image)
    assert layout.grid == case.grid and maps.shape[2:] == case.grid
    assert gradient.shape == maps.shape and gradient.abs().sum() > 0


def test_a_change_in_a_corner_of_the_image_shows_in_that_corner_of_the_map(network):
    case, module, image = network
    height, width = case.size
    tall, wide = height // 4, width // 4
    batch = image.repeat(1 + len(CORNERS), 1, 1, 1)
    for index, (down, across) in enumerate(CORNERS.values(), start=1):
        top, left = down * (height - tall), across * (width - wide)
        noise = torch.randn(3, tall, wide, generator=torch.Generator().manual_seed(0))
        batch[index, :, top : top + tall, left : left + wide] += 2 * noise
    maps, _, _ = look(module, case.layer, batch)
    change = (maps[1:] - maps[:1]).pow(2).sum(1)
    share = change / change.sum((1, 2), keepdim=True)
    excess = share - share.mean(0)  # attention and wide receptive fields let every change show a little everywhere
    for found, (name, corner) in zip(excess, CORNERS.items(), strict=True):
        quarters = {place: float(quarter(found, *at).sum()) for place, at in CORNERS.items()}
        assert max(quarters, key=lambda place: quarters[place]) == name, f'{corner}: {quarters}\n{found}'


def quarter(found, down, across):
    """A corner of a map; an odd map's middle row and column belong to none."""
    rows, columns = found.shape[0] // 2, found.shape[1] // 2
    return (found[-rows:] if down else found[:rows])[:, -columns if across else 0 : None if across else columns]


UNKNOWN = {
    'ResNet': 'backbone.layer4',
    'HRNet': 'neck.0.final_layer',
    'ViT': 'backbone.layers.1.ln1',
    'BEiT': 'backbone.layers.1',
    'BEiT, class token': 'backbone.layers.1.ln1',
    'DeiT3': 'backbone.layers.1.ln1',
    'LeViT': 'backbone.stages.2',
    'torchvision MobileNetV3': 'features',
    'timm Swin': 'norm',
    'timm CaiT': 'blocks_token_only.1.norm1',
    'torchvision ViT': 'encoder.layers.encoder_layer_1.ln_1',
    'torchvision DenseNet': 'features+relu',
    'torchvision VGG': 'features.19',
    'HF Swin': 'swin.layernorm',
}


@pytest.mark.parametrize('name', UNKNOWN)
def test_search_finds_the_layer_of_a_network_that_the_table_does_not_know(name, networks, monkeypatch, caplog):
    case, module, image = networks(name)
    monkeypatch.setattr('vistool.network.layers.DEFAULT_LAYERS', {})
    assert layers_to_explain(module, image) == [UNKNOWN[name]]
    assert f'target layer: {UNKNOWN[name]} (found by layer search, as {network_name(module)} is not' in caplog.text
    _, layout, gradient = look(module, UNKNOWN[name], image)
    assert layout.grid == case.grid and gradient.any()


def test_a_headless_network_is_measured_by_its_features(networks):
    _, module, image = networks('timm Swin')
    module.reset_classifier(0)
    assert search_layer(module, image) == 'norm'


def test_nothing_is_measured_where_nothing_is_spatial():
    module = nn.Sequential(nn.Flatten(), nn.Linear(48, 5))
    assert search_layer(module, torch.randn(1, 3, 4, 4)) is None


@pytest.mark.parametrize(
    ('name', 'layer', 'better'),
    [
        ('ViT', 'backbone.layers.1', 'backbone.layers.1.ln1'),
        ('DeiT, distilled', 'backbone.layers.1.ffn', 'backbone.layers.1.ln1'),
        ('torchvision ViT', 'encoder.ln', 'encoder.layers.encoder_layer_1.ln_1'),
        ('timm ViT, registers', 'norm', 'blocks.1.norm1'),
        ('HF ViT', 'vit.encoder.layer.1.intermediate', 'vit.encoder.layer.1.layernorm_before'),
    ],
)
def test_behind_the_last_attention_an_error_names_the_layer_before_it(networks, name, layer, better):
    _, module, image = networks(name)
    with pytest.raises(InputError, match=rf'{layer}.*every patch is zero.*take {better}$'):
        look(module, layer, image)


@pytest.mark.parametrize(
    ('name', 'layer', 'better'),
    [
        ('ResNet', 'head.fc', 'backbone.layer4'),
        ('ViT', 'head.layers.head', 'backbone.layers.1.ln1'),
        ('Swin', 'head.fc', 'backbone.norm3'),
        ('BEiT', 'backbone.layers.0.attn.attn_drop', 'backbone.layers.1'),
    ],
)
def test_a_layer_without_a_map_is_answered_with_one_that_has_one(networks, name, layer, better):
    _, module, image = networks(name)
    with pytest.raises(InputError, match=rf'{layer}.*no spatial map.*take {better}$'):
        look(module, layer, image)


def test_a_default_that_gives_no_map_is_not_suggested(networks):
    """At this size the last stage has a single position."""
    _, module, _ = networks('ResNet')
    with pytest.raises(InputError, match=r'single position.*take backbone\.layer3') as error:
        look(module, 'backbone.layer4', torch.randn(1, 3, 32, 32))
    assert 'take backbone.layer4' not in str(error.value)


SMALL = {
    'torchvision ResNet-18 at 32': (lambda: torchvision.models.resnet18(num_classes=5), 32, 'layer4', 'layer3'),
    'torchvision ResNet-18 at 16': (lambda: torchvision.models.resnet18(num_classes=5), 16, 'layer4', 'layer2'),
    'timm ConvNeXt at 32': (lambda: timm.create_model('convnext_atto', num_classes=5), 32, 'stages.3', 'stages.2'),
    'timm MobileNetV3 at 32': (lambda: timm.create_model('mobilenetv3_small_050'), 32, 'blocks.5', 'blocks.3'),
}


@pytest.mark.parametrize('name', SMALL)
def test_at_a_small_size_the_last_stage_with_several_positions_is_the_default(name, caplog):
    make, side, usual, layer = SMALL[name]
    network, photos = make().eval(), torch.randn(2, 3, side, side)
    for _ in range(2):
        results = CAM(['gradcam', 'eigencam'])(network, photos)
        assert [each.layers for each in results] == [(layer,)] * 2
    text = f'target layer: {layer} (the last stage with more than one position; not {usual}, the default'
    assert caplog.text.count(text) == 1
    assert CAM()(network, torch.randn(1, 3, 64, 64))[0].layers == (usual,)  # enough for that layer
    with pytest.raises(InputError, match='single position'):
        CAM(layers=usual)(network, photos)


def test_a_score_that_ignores_the_image_is_told(networks, caplog):
    _, module, image = networks('timm ViT')
    torch.nn.init.zeros_(module.head.weight)
    look(module, 'blocks.1.norm1', image)
    assert 'is zero everywhere, so there is nothing to see: the weights of head are all zero' in caplog.text
