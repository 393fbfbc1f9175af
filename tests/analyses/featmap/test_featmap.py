"""What a layer gave, exactly, from a forward that stops there."""

import copy

import numpy as np
import pytest
import torch
from featmap_networks import NETWORKS, build
from torch import nn
from torch.utils.checkpoint import checkpoint

from vistool import FeatureMaps, InputError
from vistool.network.features import features
from vistool.network.layers import find_target_layers
from vistool.network.stages import find_stages
from vistool.visualization.facets import facets


def hooked_by_hand(network, layer, inputs):
    kept = []

    def keep(module, args, output):
        while not isinstance(output, torch.Tensor):
            output = output[0] if isinstance(output, (tuple, list)) else next(iter(output.values()))
        kept.append(output.clone())

    handle = network.get_submodule(layer).register_forward_hook(keep)
    with torch.no_grad():
        network(inputs)
    handle.remove()
    return kept[0]


def calls_of(network, run):
    order = []
    handles = [
        module.register_forward_hook(lambda *_, name=name: order.append(name))
        for name, module in network.named_modules()
    ]
    run()
    for handle in handles:
        handle.remove()
    return order


def shown(network, inputs, *layers, **options):
    return FeatureMaps(layers=layers, reduction='none', **options)(network, inputs)


# Three of each package's five with the quick tests
QUICK = [name for number, name in enumerate(NETWORKS) if number % 5 in (0, 3, 4)]
RAW = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in NETWORKS]


@pytest.mark.parametrize('name', RAW)
def test_raw_maps_are_the_layers_own_values_and_nothing_behind_it_runs(name):
    network, inputs, layer, layout = build(name)
    expected = layout(hooked_by_hand(network, layer, inputs)).numpy()
    with torch.no_grad():
        everything = calls_of(network, lambda: network(inputs))
    results = []
    shown(network, inputs, layer)  # once for each network, it is counted how often the layer runs
    order = calls_of(network, lambda: results.extend(shown(network, inputs, layer)))
    for image, result in enumerate(results):
        drawn = np.stack([item.values for item in result.maps])
        assert drawn.dtype == np.float32 and np.array_equal(drawn, expected[image])
    assert order == everything[: everything.index(layer) + 1]
    assert len(order) < len(everything)


def test_the_twenty_are_of_four_packages():
    assert sorted({name.split('.')[0] for name in NETWORKS}) == ['hf', 'mm', 'timm', 'tv'] and len(NETWORKS) == 20


def test_of_several_layers_the_last_one_ends_the_forward():
    network, inputs, _, _ = build('tv.resnet18')
    shown(network, inputs, 'layer2', 'layer1', 'conv1')
    order = calls_of(network, lambda: shown(network, inputs, 'layer2', 'layer1', 'conv1'))
    assert order[-1] == 'layer2'


class Shared(nn.Module):
    """One layer twice in a forward, an in-place activation behind it, and a branch that is never taken."""

    def __init__(self, checkpointed=None):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, 2, 1)
        self.layer = nn.Conv2d(4, 4, 3, 1, 1)
        self.act = nn.ReLU(inplace=True)
        self.unused = nn.Conv2d(4, 4, 1)
        self.after = nn.Conv2d(4, 4, 1)
        self.checkpointed = checkpointed

    def forward(self, x):
        x = self.stem(x)
        for _ in range(2):
            part = self.layer if self.checkpointed is None else self._checkpoint
            x = self.act(part(x))
        return self.after(x)

    def _checkpoint(self, x):
        return checkpoint(self.layer, x, use_reentrant=self.checkpointed)


@pytest.fixture
def shared():
    torch.manual_seed(1)
    return Shared().eval(), torch.randn(1, 3, 16, 16)


def test_a_layer_used_twice(shared):
    network, inputs = shared
    with torch.no_grad():
        first = network.layer(network.stem(inputs))
        second = network.layer(first.relu())
    for layer, expected in (('layer', second), ('layer#1', first), ('layer@1', first), ('layer#2', second)):
        (feature,) = features(network, inputs, find_target_layers(network, [layer]))
        assert torch.equal(feature.maps, expected)
    every = features(network, inputs, find_target_layers(network, ['layer#all']))
    assert [feature.name for feature in every] == ['layer#1', 'layer#2']
    assert torch.equal(every[0].maps, first) and torch.equal(every[1].maps, second)
    with pytest.raises(InputError, match='called fewer than 3 times'):
        features(network, inputs, find_target_layers(network, ['layer@3']))


def test_a_layer_never_reached_is_an_error_that_says_so(shared):
    network, inputs = shared
    with pytest.raises(InputError, match=r"'unused' was not reached .*preview_model"):
        shown(network, inputs, 'stem', 'unused')


def test_an_in_place_activation_behind_the_layer_does_not_reach_what_is_kept(shared):
    network, inputs = shared
    (result,) = shown(network, inputs, 'layer#1', 'act#1')
    layer, act = (
        np.stack([m.values for m in result.maps if m.coordinates['layer'] == name]) for name in ('layer#1', 'act#1')
    )
    assert layer.min() < 0 and np.array_equal(act, np.maximum(layer, 0))


@pytest.mark.parametrize('reentrant', [True, False])
def test_under_checkpointing(shared, reentrant):
    network, inputs = shared
    other = Shared(reentrant).eval()
    other.load_state_dict(network.state_dict())
    (plain,), (result,) = shown(network, inputs, 'layer'), shown(other, inputs, 'layer')
    assert all(np.array_equal(a.values, b.values) for a, b in zip(plain.maps, result.maps, strict=True))


def test_module_prefixes_and_wrapped_models(shared):
    network, inputs = shared
    (plain,) = shown(network, inputs, 'layer')
    for model, layer in ((network, 'module.layer'), (nn.DataParallel(network), 'layer')):
        (result,) = shown(model, inputs, layer)
        assert result.maps[0].coordinates['layer'] == 'layer#2' and np.array_equal(
            plain.maps[1].values, result.maps[1].values
        )


def test_the_model_is_left_as_it_was(shared):
    network, inputs = shared
    network.train()
    network.after.eval()
    network.stem.weight.requires_grad_(False)
    before = copy.deepcopy(network.state_dict())
    with torch.enable_grad():
        shown(network, inputs, 'layer')
        assert torch.is_grad_enabled()
    assert network.training and not network.after.training and not network.stem.weight.requires_grad
    assert network.layer.weight.requires_grad and network.layer.weight.grad is None
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in before.items())


class Many(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, 2, 1)

    def forward(self, x):
        y = self.conv(x)
        return {'fine': (x, y.mean((2, 3))), 'coarse': y}


def test_each_element_of_a_tuple_or_dict_that_is_a_map():
    outer = nn.Sequential(Many())
    inputs = torch.randn(2, 3, 8, 8)
    found = {feature.name: feature.maps for feature in features(outer, inputs, find_target_layers(outer, ['0']))}
    assert list(found) == ['0[fine][0]', '0[coarse]']
    assert torch.equal(found['0[fine][0]'], inputs) and found['0[coarse]'].shape == (2, 4, 4, 4)


@pytest.mark.parametrize(
    ('name', 'inner'),
    [('mm.SwinTransformer', 'stages.1.blocks.1.attn.w_msa'), ('timm.swin', 'layers.1.blocks.1.attn')],
)
def test_windows_go_back_to_their_places(name, inner):
    """The windows of a shifted block, put back, are what the block's own reversal makes of them."""
    network, inputs, _, _ = build(name)
    if name.startswith('mm'):
        outer = inner.rpartition('.')[0]
        attention = network.get_submodule(outer)
        attention.drop.p = 0.0
        tokens = hooked_by_hand(network, outer, inputs)
        expected = tokens.transpose(1, 2).reshape(2, -1, 7, 14)
    else:
        block = network.get_submodule(inner.rpartition('.')[0])
        kept = []
        block.drop_path1.register_forward_hook(lambda *call: kept.append(call[2]))
        network(inputs)
        expected = kept[0].permute(0, 3, 1, 2)
    (feature,) = features(network, inputs, find_target_layers(network, [inner]))
    assert feature.maps.shape == expected.shape
    assert torch.equal(feature.maps, expected.detach())


@pytest.mark.parametrize('name', ['maxvit_rmlp_pico_rw_256', 'maxvit_tiny_tf_224'], ids=['own', 'TensorFlow'])
@pytest.mark.parametrize(('part', 'scattered'), [('attn_block', False), ('attn_grid', True)])
def test_maxvits_blocks_and_grids_go_back_to_their_places(name, part, scattered):
    import timm

    torch.manual_seed(0)
    options = {'depths': (1, 1), 'embed_dim': (32, 64), 'block_type': ('M', 'M'), 'stem_width': 8}
    network = timm.create_model(name, img_size=(64, 96), **options).eval()
    inputs, layer = torch.randn(2, 3, 64, 96), f'stages.0.blocks.0.{part}.attn.proj'
    grid, window = (16, 24), tuple(network.get_submodule(f'stages.0.blocks.0.{part}').partition_size)
    kept = hooked_by_hand(network, layer, inputs)
    expected = torch.full((2, 32, *grid), torch.nan)
    number = 0
    for image in range(2):
        for top in range(grid[0] // window[0]):
            for left in range(grid[1] // window[1]):
                if scattered:  # every H/w-th row and W/w-th column from (top, left) on
                    places = slice(top, None, grid[0] // window[0]), slice(left, None, grid[1] // window[1])
                else:
                    places = tuple(slice(n * w, n * w + w) for n, w in zip((top, left), window, strict=True))
                expected[(image, slice(None), *places)] = kept[number].permute(2, 0, 1)
                number += 1
    assert number == len(kept)
    for image, result in enumerate(shown(network, inputs, layer)):
        assert np.array_equal(np.stack([item.values for item in result.maps]), expected[image].numpy())


def test_windows_with_padding():
    from vistool.network.windows import window_layout

    class Block(nn.Module):
        window_size, shift_size = 4, 2

        def __init__(self):
            super().__init__()
            self.attn = nn.Identity()

    root = nn.Sequential(Block())
    maps = torch.randn(2, 5, 6, 10)
    padded = torch.nn.functional.pad(maps, (0, 2, 0, 2)).roll((-2, -2), (2, 3))
    pieces = [
        padded[image, :, row : row + 4, column : column + 4].reshape(5, 16).T
        for image in range(2)
        for row in (0, 4)
        for column in (0, 4, 8)
    ]
    windows = torch.stack(pieces)
    layout = window_layout(windows.shape, root, '0.attn', 2, [(6, 10)])
    assert layout is not None and torch.equal(layout.to_map(windows), maps)
    assert torch.equal(layout.from_map(maps, windows), windows)


@pytest.mark.parametrize(
    ('name', 'expected'),
    [
        ('mm.ResNet', ['layer1', 'layer2', 'layer3', 'layer4']),
        ('mm.ConvNeXt', ['stages.0', 'stages.1', 'stages.2', 'stages.3']),
        ('mm.VisionTransformer', ['layers.0', 'layers.1', 'layers.2']),
        ('tv.resnet18', ['layer1', 'layer2', 'layer3', 'layer4']),
        ('timm.resnet', ['layer1', 'layer2', 'layer3', 'layer4']),
        ('hf.ConvNext', ['encoder.stages.0', 'encoder.stages.1', 'encoder.stages.2', 'encoder.stages.3']),
    ],
)
def test_stages(name, expected):
    network, inputs, _, _ = build(name)
    assert find_stages(network, inputs[:1]) == expected


@pytest.mark.parametrize(
    ('name', 'options', 'size', 'grids'),
    [
        ('efficientnet_b0', {}, 224, [112, 56, 28, 14, 7]),  # squeezes to 1 × 1 on the side
        (
            'maxvit_tiny_tf_224',
            {'depths': (1, 1, 1, 1), 'embed_dim': (32, 64, 64, 64), 'stem_width': 8},
            224,
            [56, 28, 14, 7],
        ),
    ],
)
def test_stages_of_networks_with_other_sizes_on_the_side(name, options, size, grids):
    import timm

    torch.manual_seed(0)
    network = timm.create_model(name, **options).eval()
    (result,) = FeatureMaps()(network, torch.randn(1, 3, size, size))
    assert [item.values.shape for item in result.maps] == [(side, side) for side in grids]


def test_stages_of_t2t_are_its_token_transformers_and_the_backbone():
    import mmpretrain.models  # noqa: F401
    from mmpretrain.registry import MODELS

    spec = {'img_size': 96, 'embed_dims': 32, 'num_layers': 2}
    layers = {'num_heads': 2, 'feedforward_channels': 64}
    network = MODELS.build(
        {'type': 'T2T_ViT', **spec, 'layer_cfgs': layers, 't2t_cfg': {'token_dims': 16, 'use_performer': False}}
    )
    network.eval()
    inputs = torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    assert find_stages(network, inputs) == ['tokens_to_token.attention1', 'tokens_to_token.attention2', 'norm']
    (result,) = shown(network, inputs, 'tokens_to_token.soft_split1')
    # 12 × 12 positions of 3 × 3 neighbours each, not 144 channels of a grid that happens to have 16 · 9 cells
    kept = hooked_by_hand(network, 'tokens_to_token.soft_split1', inputs)
    assert kept.shape == (1, 144, 144)
    drawn = np.stack([item.values for item in result.maps])
    assert np.array_equal(drawn, kept[0].reshape(144, 12, 12).numpy())


@pytest.mark.slow
@pytest.mark.parametrize('name', NETWORKS)
def test_stages_are_distinct_layers_that_can_be_drawn(name):
    network, inputs, _, _ = build(name)
    results = FeatureMaps()(network, inputs)
    names = [item.coordinates['layer'] for item in results[0].maps]
    assert 1 <= len(names) <= 8 and len(set(names)) == len(names)
    assert [tile.column.split(' · ')[0] for tile in facets(results[0]).tiles] == [
        f'stage {k + 1}' for k in range(len(names))
    ]


def test_a_pooled_layer_and_a_container_are_errors():
    network, inputs, _, _ = build('tv.resnet18')
    with pytest.raises(InputError, match="'avgpool' gives no spatial map"):
        shown(network, inputs, 'avgpool')
    network, inputs, _, _ = build('mm.VisionTransformer')
    with pytest.raises(InputError, match=r'ModuleList.*accepted: layers\.0'):
        shown(network, inputs, 'layers')


def test_a_network_that_swallows_exceptions_still_stops():
    class Stubborn(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 4, 3, 2), nn.Conv2d(4, 4, 1)

        def forward(self, x):
            try:
                x = self.first(x)
            except Exception:
                x = torch.zeros(1, 4, 3, 3)
            return self.second(x)

    network = Stubborn()
    shown(network, torch.randn(1, 3, 8, 8), 'first')
    assert calls_of(network, lambda: shown(network, torch.randn(1, 3, 8, 8), 'first')) == ['first']


def test_a_forward_that_fails_says_whose_fault_it_is():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Identity()

        def forward(self, left, right):
            return left + right

    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3))
    with pytest.raises(InputError, match='forward of Sequential fails'):
        shown(network, torch.randn(1, 3, 8, 8), '1')
    with pytest.raises(InputError, match="missing 1 required positional argument: 'right'"):
        FeatureMaps()(Two(), torch.randn(1, 3, 8, 8))


class Predictor(nn.Module):
    """As mmdet's detectors: only where it predicts does its head run as a module, with a map for each level."""

    def __init__(self):
        super().__init__()
        self.neck, self.head = nn.Conv2d(3, 4, 4, 4), nn.Conv2d(4, 2, 1)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        maps = self.neck(inputs)
        if mode == 'tensor':
            return self.head.forward(maps)
        assert mode == 'predict' and len(data_samples) == len(inputs)
        return self.head(maps)


@pytest.mark.parametrize('lacking', [False, True])
def test_a_detector_predicts_so_that_its_head_is_reached(monkeypatch, lacking):
    class Adapter:
        def prepared(self, inputs, samples):
            if lacking:
                raise InputError('no compiled ops')
            return {'inputs': inputs, 'data_samples': [None] * len(samples), 'mode': 'predict'}

    monkeypatch.setattr('vistool.analyses.featmap.plan.find_detector', lambda root: Adapter())
    network, image = Predictor().eval(), torch.rand(3, 24, 32)
    neck = FeatureMaps(layers='neck', channels=range(4))(network, image)
    np.testing.assert_allclose(neck.to_array(), network.neck(image[None])[0].detach(), atol=1e-6)
    if lacking:
        with pytest.raises(InputError, match="'head' was not reached"):
            FeatureMaps(layers='head')(network, image)
    else:
        found = FeatureMaps(layers='head', channels=range(2))(network, image)
        np.testing.assert_allclose(found.to_array(), network(image[None])[0].detach(), atol=1e-6)


class AnchorHead(nn.Module):
    """As detectors of torchvision: the numbers of all anchors of all levels in one list, ``(B, anchors, numbers)``."""

    def __init__(self, anchors, numbers, levels):
        super().__init__()
        self.stem, self.down = nn.Conv2d(3, 8, 3, 8, 1), nn.Conv2d(8, 8, 3, 2, 1)
        self.predict = nn.Conv2d(8, anchors * numbers, 3, padding=1)
        self.listed = nn.Identity()
        self.numbers, self.levels = numbers, levels

    def forward(self, images):
        maps = [self.stem(images)]
        for _ in range(self.levels - 1):
            maps.append(self.down(maps[-1]))
        rows = []
        for each in map(self.predict, maps):
            b, _, h, w = each.shape
            rows.append(each.view(b, -1, self.numbers, h, w).permute(0, 3, 4, 1, 2).reshape(b, -1, self.numbers))
        return self.listed(torch.cat(rows, 1))


@pytest.mark.parametrize('numbers', [4, 9, 5])
@pytest.mark.parametrize(('anchors', 'levels'), [(9, 1), (3, 2), (1, 2), (2, 4)])
def test_numbers_of_anchors_are_not_drawn_as_pictures(anchors, levels, numbers):
    """Four coordinates of a box, nine classes: a square of positions by their number alone."""
    torch.manual_seed(0)
    network = AnchorHead(anchors, numbers, levels).eval()
    with pytest.raises(InputError, match=f"'listed' gives no spatial map: .*{'' if numbers == 5 else 'positions'}"):
        FeatureMaps(layers='listed')(network, torch.randn(3, 128, 128))


def test_scores_of_the_whole_image_are_not_drawn_as_pictures():
    """``(B, classes)``, also of a number of classes that is a square."""
    network = nn.Sequential(nn.Conv2d(3, 9, 3, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Identity())
    with pytest.raises(InputError, match='does not have two spatial axes'):
        FeatureMaps(layers='3')(network, torch.randn(3, 32, 32))


def test_one_number_of_each_cell_of_one_level_is_a_map():
    """One anchor at each cell, of a single level: its rows lie in the image, and what they answer to shows it."""
    torch.manual_seed(0)
    network, image = AnchorHead(1, 4, 1).eval(), torch.randn(3, 128, 128)
    found = FeatureMaps(layers='listed', channels=range(4))(network, image)
    expected = network.predict(network.stem(image[None]))[0].detach()
    np.testing.assert_allclose(found.to_array(), expected, atol=1e-6)
