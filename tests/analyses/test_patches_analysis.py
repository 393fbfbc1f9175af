"""The cut that is read from a network is the one its embedding makes: perturb the image and see which tokens change."""

import logging

import numpy as np
import pytest
import timm
import torch
import torchvision
import transformers as hf
from mmpretrain.models import build_backbone
from timm.models import mvitv2
from torch import nn

import vistool as vt
from vistool.data.patches import MASKS, make_mask
from vistool.errors import InputError
from vistool.network.embedding import find_embedding
from vistool.network.windows import Windows, find_windows
from vistool.registry import ANALYSES

SMALL = {'hidden_size': 16, 'num_hidden_layers': 1, 'num_attention_heads': 2, 'intermediate_size': 16, 'patch_size': 16}
SWIN = {'embed_dim': 12, 'depths': [2, 2], 'num_heads': [2, 2]}


def mm(**settings):
    return build_backbone(settings)


def hf_model(kind, **settings):
    return getattr(hf, f'{kind}Model')(getattr(hf, f'{kind}Config')(**settings))


def tv_swin():
    return torchvision.models.SwinTransformer([4, 4], 12, [2, 2], [2, 2], [7, 7])


TINY_ViT = {'embed_dims': 16, 'num_layers': 1, 'num_heads': 2, 'feedforward_channels': 16}
TINY_SWIN = {'embed_dims': 12, 'depths': [2, 2], 'num_heads': [2, 2]}
T2T = {
    't2t_cfg': {'token_dims': 8, 'use_performer': False},
    'num_layers': 1,
    'embed_dims': 16,
    'layer_cfgs': {'num_heads': 2, 'feedforward_channels': 16},
}
MVIT = {'embed_dims': 16, 'num_layers': 3, 'num_heads': 1, 'downscale_indices': [1, 2]}

# name → how it is built, image size, module whose output holds its tokens, special tokens, patch, grid
FAMILIES = {
    'ViT, mmpretrain': (
        lambda: mm(type='VisionTransformer', arch=TINY_ViT, img_size=(64, 96), patch_size=16),
        (64, 96),
        'patch_embed',
        ('CLS',),
        16,
        (4, 6),
    ),
    'DeiT, mmpretrain': (
        lambda: mm(type='DistilledVisionTransformer', arch=TINY_ViT, img_size=64, patch_size=16),
        (64, 64),
        'patch_embed',
        ('CLS', 'DIST'),
        16,
        (4, 4),
    ),
    'Swin, mmpretrain': (
        lambda: mm(type='SwinTransformer', arch=TINY_SWIN, img_size=64, out_indices=(1,)),
        (60, 62),
        'patch_embed',
        (),
        4,
        (15, 16),
    ),
    'SwinV2, mmpretrain': (
        lambda: mm(
            type='SwinTransformerV2',
            arch={**TINY_SWIN, 'extra_norm_every_n_blocks': 0},
            img_size=64,
            window_size=[8, 4],
            out_indices=(1,),
        ),
        (64, 64),
        'patch_embed',
        (),
        4,
        (16, 16),
    ),
    'MViT, mmpretrain': (
        lambda: mm(type='MViT', arch=MVIT, img_size=64, out_scales=[2]),
        (64, 64),
        'patch_embed',
        (),
        7,
        (16, 16),
    ),
    'ConvNeXt, mmpretrain': (
        lambda: mm(type='ConvNeXt', arch={'depths': [1, 1, 1, 1], 'channels': [8, 8, 8, 8]}),
        (64, 100),
        'downsample_layers.0',
        None,
        4,
        (16, 25),
    ),
    'ViT, timm': (
        lambda: timm.create_model('vit_tiny_patch16_224', img_size=64, depth=1),
        (64, 64),
        'patch_embed',
        ('CLS',),
        16,
        (4, 4),
    ),
    'DeiT, timm': (
        lambda: timm.create_model('deit_tiny_distilled_patch16_224', img_size=64, depth=1),
        (64, 64),
        'patch_embed',
        ('CLS', 'DIST'),
        16,
        (4, 4),
    ),
    'DINOv2 with registers, timm': (
        lambda: timm.create_model('vit_small_patch14_reg4_dinov2', img_size=70, depth=1),
        (70, 70),
        'patch_embed',
        ('CLS', 'REG1', 'REG2', 'REG3', 'REG4'),
        14,
        (5, 5),
    ),
    'Swin, timm': (
        lambda: timm.create_model('swin_tiny_patch4_window7_224', img_size=56, **SWIN),
        (56, 56),
        'patch_embed',
        (),
        4,
        (14, 14),
    ),
    'SwinV2, timm': (
        lambda: timm.create_model('swinv2_tiny_window8_256', img_size=64, **SWIN),
        (64, 64),
        'patch_embed',
        (),
        4,
        (16, 16),
    ),
    'MViT, timm': (
        lambda: mvitv2.MultiScaleVit(mvitv2.MultiScaleVitCfg(depths=(1, 1), embed_dim=16, num_heads=1), img_size=64),
        (64, 64),
        'patch_embed',
        (),
        7,
        (16, 16),
    ),
    'ConvNeXt, timm': (lambda: timm.create_model('convnext_atto'), (64, 64), 'stem', None, 4, (16, 16)),
    'ViT, Hugging Face': (
        lambda: hf_model('ViT', image_size=64, **SMALL),
        (64, 64),
        'embeddings.patch_embeddings',
        ('CLS',),
        16,
        (4, 4),
    ),
    'DeiT, Hugging Face': (
        lambda: hf_model('DeiT', image_size=64, **SMALL),
        (64, 64),
        'embeddings.patch_embeddings',
        ('CLS', 'DIST'),
        16,
        (4, 4),
    ),
    'Swin, Hugging Face': (
        lambda: hf_model('Swin', image_size=66, window_size=7, **SWIN),
        (66, 66),
        'embeddings',
        (),
        4,
        (17, 17),
    ),
    'SwinV2, Hugging Face': (
        lambda: hf_model('Swinv2', image_size=64, window_size=8, **SWIN),
        (64, 64),
        'embeddings',
        (),
        4,
        (16, 16),
    ),
    'ConvNeXt, Hugging Face': (
        lambda: hf_model('ConvNext', hidden_sizes=[8] * 4, depths=[1] * 4),
        (64, 64),
        'embeddings',
        None,
        4,
        (16, 16),
    ),
    'ViT, torchvision': (
        lambda: torchvision.models.VisionTransformer(64, 16, 1, 2, 16, 16),
        (64, 64),
        'conv_proj',
        ('CLS',),
        16,
        (4, 4),
    ),
    'Swin, torchvision': (tv_swin, (62, 64), 'features.0', (), 4, (15, 16)),
    'ConvNeXt, torchvision': (
        lambda: torchvision.models.ConvNeXt([torchvision.models.convnext.CNBlockConfig(8, None, 2)]),
        (64, 64),
        'features.0',
        None,
        4,
        (16, 16),
    ),
}


def tokens_of(model, module, image, count):
    """``(N, C)``: what the module gave, laid out by nothing but its shape."""
    kept = []

    def keep(m, args, output):
        kept.append(output)
        raise StopIteration

    handle = model.get_submodule(module).register_forward_hook(keep)
    with torch.no_grad(), pytest.raises(StopIteration):
        model(image)
    handle.remove()
    value = kept[0][0] if isinstance(kept[0], tuple) else kept[0]
    if value.ndim == 4:
        value = value.flatten(2).transpose(1, 2) if value.shape[2] * value.shape[3] == count else value.flatten(1, 2)
    assert value.shape[1] == count
    return value[0]


def changed(model, module, count, image, y, x):
    other = image.clone()
    other[:, :, y, x] += 10
    before, after = (tokens_of(model, module, each, count) for each in (image, other))
    return set(torch.nonzero((before - after).abs().amax(1) > 1e-6)[:, 0].tolist())


def seen(grid, y, x):
    boxes = [grid.box(number) for number in range(grid.count)]
    return {n for n, (left, top, right, bottom) in enumerate(boxes) if left <= x < right and top <= y < bottom}


@pytest.mark.parametrize('name', FAMILIES)
def test_perturbing_a_pixel_changes_the_tokens_whose_patches_hold_it(name):
    build, size, module, special, patch, shape = FAMILIES[name]
    torch.manual_seed(0)
    model = build()
    model.eval()
    image = torch.randn(1, 3, *size)
    embedding = find_embedding(model, image)
    grid = embedding.grid
    assert (grid.patch, grid.shape, embedding.special) == ((patch, patch), shape, special or ())
    assert embedding.attends == (special is not None)
    generator = np.random.default_rng(0)
    places = [(0, 0), (size[0] - 1, size[1] - 1), *zip(*(generator.integers(0, side, 4) for side in size), strict=True)]
    for y, x in places:
        wanted = seen(grid, y, x)
        assert changed(model, module, grid.count, image, y, x) == wanted
        assert len(wanted) <= 1 or grid.overlaps
    if grid.overlaps:
        assert max(len(seen(grid, y, x)) for y in range(8, 16) for x in range(8, 16)) == 4


def test_the_fields_of_t2t_are_those_of_its_splits():
    """Between its splits T2T attends to all tokens, so only without that attention a field is seen to end."""
    model = mm(type='T2T_ViT', img_size=64, **T2T)
    model.eval()
    image = torch.randn(1, 3, 64, 64)
    embedding = find_embedding(model, image)
    assert [step.grid.patch[0] for step in embedding.steps] == [7, 15, 31]
    assert [step.grid.shape for step in embedding.steps] == [(16, 16), (8, 8), (4, 4)] and embedding.special == ('CLS',)
    local = model.tokens_to_token
    local.attention1, local.attention2 = torch.nn.Identity(), torch.nn.Identity()
    local.soft_split2.register_forward_hook(lambda m, args, output: columns.append(output[0].T))
    local.project = torch.nn.Identity()
    for y, x in ((0, 0), (20, 33), (63, 63), (40, 8)):
        columns = []
        other = image.clone()
        other[:, :, y, x] += 10
        for each in (image, other):
            local(each)
        moved = torch.nonzero((columns[0] - columns[1]).abs().amax(1) > 0)[:, 0].tolist()
        assert set(moved) == seen(embedding.grid, y, x) and len(moved) <= 4


def test_the_fields_of_mvit_grow_with_its_pooling():
    model = mm(type='MViT', arch=MVIT, img_size=64, out_scales=[2])
    model.eval()
    embedding = find_embedding(model, torch.randn(1, 3, 64, 64))
    assert [(step.grid.patch, step.grid.shape) for step in embedding.later] == [((15, 15), (8, 8)), ((31, 31), (4, 4))]


def window_of(windows, shape):
    """(row, column) of each token's window."""
    number = [
        np.searchsorted(windows.edges(axis, shape[axis])[1:], np.arange(shape[axis]), side='right') for axis in (0, 1)
    ]
    return np.stack(np.meshgrid(*number, indexing='ij'), -1).reshape(-1, 2)


@pytest.mark.parametrize('size', [(56, 84), (60, 64)])
def test_the_windows_are_those_that_tokens_see_each_other_in(size):
    """Perturb a token before a block's attention: exactly the tokens of its window change behind it."""
    torch.manual_seed(0)
    model = mm(type='SwinTransformer', arch=TINY_SWIN, img_size=size, out_indices=(1,))
    model.eval()
    shape = size[0] // 4, size[1] // 4
    plain, shifted = find_windows(model, shape)
    assert (plain, shifted) == (Windows((7, 7)), Windows((7, 7), (3, 3)))
    for block, windows in zip(model.stages[0].blocks, (plain, shifted), strict=True):
        attention = block.attn
        tokens = torch.randn(1, shape[0] * shape[1], 12)
        for place in (0, 37, tokens.shape[1] - 1):
            other = tokens.clone()
            other[0, place] += 3
            with torch.no_grad():
                moved = (attention(tokens, shape) - attention(other, shape)).abs().amax(-1)[0] > 1e-6
            own = window_of(windows, shape)
            assert np.array_equal(moved.numpy(), (own == own[place]).all(1))


@pytest.mark.parametrize(
    'model',
    [
        lambda: torchvision.models.resnet18(),
        lambda: timm.create_model('tf_efficientnet_lite0'),
        lambda: mm(type='ResNet', depth=18),
        lambda: torchvision.models.mobilenet_v3_small(),
    ],
)
def test_a_convolutional_network_cuts_no_patches(model):
    made = model()
    made.eval()
    with pytest.raises(InputError, match='^model: .* cuts no patches.*leave out model and give patch_size'):
        find_embedding(made, torch.randn(1, 3, 64, 64))


@pytest.mark.parametrize(
    ('first', 'said'),
    [
        (nn.PixelUnshuffle(4), 'folds the image into 16×16 positions of 48 channels before 1 takes it'),
        (nn.Upsample(scale_factor=0.5), 'resizes the image to 32×32 with 3 channels before 1 takes it'),
    ],
    ids=['folded', 'smaller'],
)
def test_what_becomes_of_an_image_before_its_first_layer_is_named(first, said):
    """TResNet folds blocks of 4 × 4 pixels into channels."""
    network = nn.Sequential(first, nn.LazyConv2d(8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network.eval()(torch.randn(1, 3, 64, 64))
    with pytest.raises(InputError, match=said):
        find_embedding(network, torch.randn(1, 3, 64, 64))


@pytest.mark.parametrize(('place', 'said'), [(0, []), (8, ['8']), (16, ['16'])])
def test_a_class_token_that_is_not_first_is_told(place, said, caplog):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.patch_embed, self.cls_token = nn.Conv2d(3, 8, 8, 8), nn.Parameter(torch.randn(1, 1, 8))
            self.norm, self.attn = nn.LayerNorm(8), nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, image):
            tokens = self.patch_embed(image).flatten(2).transpose(1, 2)
            tokens = self.norm(torch.cat([tokens[:, :place], self.cls_token, tokens[:, place:]], 1))
            return self.attn(tokens, tokens, tokens)[0].mean(1)

    with caplog.at_level(logging.INFO, 'vistool'):
        assert find_embedding(Net().eval(), torch.randn(1, 3, 32, 32)).special == ('CLS',)
    told = 'special tokens are number {} of the 17 tokens, counted from 0; they are drawn first'
    assert caplog.messages == [told.format(each) for each in said]


def test_nothing_is_left_behind():
    model = FAMILIES['ViT, torchvision'][0]()
    find_embedding(model.eval(), torch.randn(1, 3, 64, 64))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize('kind', MASKS)
@pytest.mark.parametrize('shape', [(14, 14), (5, 9), (1, 1)])
def test_masks_hide_exactly_their_share(kind, shape):
    count = shape[0] * shape[1]
    for ratio in (0, 0.3, 0.5, 0.75, 0.9, 1):
        hidden = make_mask(shape, ratio, kind, 3)
        assert hidden.shape == (count,) and hidden.sum() == count - int(count * (1 - ratio) + 1e-9)
        assert np.array_equal(hidden, make_mask(shape, ratio, kind, 3))


def test_what_masks_look_like():
    grid = ~make_mask((14, 14), 0.75, 'grid').reshape(14, 14)
    assert (grid.reshape(7, 2, 7, 2).sum((1, 3)) == 1).all()

    def edges(mask):
        return (mask[1:] != mask[:-1]).sum() + (mask[:, 1:] != mask[:, :-1]).sum()

    block, scattered = (make_mask((14, 14), 0.5, kind, 0).reshape(14, 14) for kind in ('block', 'random'))
    assert edges(block) < edges(scattered) / 2
    assert not np.array_equal(make_mask((14, 14), 0.5, seed=0), make_mask((14, 14), 0.5, seed=1))


def test_from_python_and_from_the_registry():
    model = FAMILIES['Swin, torchvision'][0]().eval()
    assert ANALYSES.build({'type': 'vistool.Patches', 'windows': True}) == vt.Patches(windows=True)
    result = vt.Patches(windows=True)(model, torch.randn(3, 64, 64))
    (plain, shifted) = result.rows[0]
    assert plain.cut.windows[0] == (0, 7, 14, 16) and shifted.cut.windows[0] == (0, 3, 10, 16)
    assert '16×16 = 256 tokens of 4×4 pixels' in result.caption
    both = vt.Patches()(model, torch.randn(2, 3, 64, 64))
    assert len(both) == 2
    assert vt.Patches(8)(None, np.zeros((16, 24, 3), np.uint8)).provenance['grid'] == (2, 3)


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'patch_size': 0}, 'patch_size'),
        ({'patch_size': 16, 'stride': -1}, 'stride'),
        ({'pad': -1}, 'pad'),
        ({'mask_ratio': 1.5}, '0 to 1'),
        ({'mask_ratio': -0.1}, '0 to 1'),
        ({'mask': 'rnadom'}, 'did you mean random'),
        ({'fit': 'stretch'}, 'resize, crop, pad'),
        ({'max_size': 0}, 'max_size'),
        ({'pad_value': 256}, '0 to 255'),
    ],
)
def test_settings_are_checked_at_once(settings, message):
    with pytest.raises(InputError, match=message):
        vt.Patches(**settings)


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'windows': True}, 'no windows'),
        ({'highlight': [16]}, '0 to 15'),
        ({'patch_size': 16}, 'read from the network'),
    ],
)
def test_settings_that_do_not_fit_the_network(settings, message):
    with pytest.raises(InputError, match=message):
        vt.Patches(**settings)(FAMILIES['ViT, torchvision'][0](), torch.randn(3, 64, 64))


def test_a_map_is_no_sequence():
    with pytest.raises(InputError, match='no sequence'):
        vt.Patches(sequence=True)(FAMILIES['ConvNeXt, torchvision'][0](), torch.randn(3, 64, 64))
