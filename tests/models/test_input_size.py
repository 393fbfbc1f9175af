"""Photos at a size of the user's own: networks that take one size are built again for it, with the same weights."""

import numpy as np
import pytest
import torch
from mmengine import Config
from torchvision.models import VisionTransformer
from torchvision.models._api import register_model

import vistool as vt
from vistool.errors import InputError
from vistool.models.configs import Source
from vistool.models.input_size import adapt_to_input, find_fixed_size, patch_size, sizing


@register_model()
def vit_tiny_for_tests(*, weights=None, progress=True, **kwargs):
    return VisionTransformer(
        patch_size=32, num_layers=2, num_heads=2, hidden_dim=32, mlp_dim=64, num_classes=5, **kwargs
    )


ARCH = {'embed_dims': 32, 'num_layers': 2, 'num_heads': 2, 'feedforward_channels': 64}
TNT = {'embed_dims_outer': 32, 'embed_dims_inner': 16, 'num_layers': 2, 'num_heads_outer': 2, 'num_heads_inner': 2}
HEAD = {'type': 'LinearClsHead', 'num_classes': 5, 'in_channels': 32}


def classifier(backbone):
    return {'type': 'ImageClassifier', 'backbone': backbone, 'head': HEAD}


NETWORKS = {
    'BEiT': classifier({'type': 'BEiTViT', 'arch': ARCH, 'img_size': 64, 'patch_size': 16, 'out_type': 'avg_featmap'}),
    'BEiT, shared bias': classifier(
        {
            'type': 'BEiTViT',
            'arch': ARCH,
            'img_size': 64,
            'patch_size': 16,
            'out_type': 'avg_featmap',
            'use_rel_pos_bias': False,
            'use_shared_rel_pos_bias': True,
            'use_abs_pos_emb': True,
        }
    ),
    'TNT': classifier({'type': 'TNT', 'arch': TNT, 'img_size': 64}),
    'CaiT': {
        'type': 'TimmClassifier',
        'model_name': 'cait_xxs24_224',
        'img_size': 64,
        'embed_dim': 32,
        'depth': 2,
        'num_heads': 2,
        'num_classes': 5,
    },
    'torchvision ViT': {'type': 'vistool.TorchvisionClassifier', 'model_name': 'vit_tiny_for_tests', 'image_size': 64},
}
PIPELINE = [
    {'type': 'LoadImageFromFile'},
    {'type': 'Resize', 'scale': 64},
    {'type': 'CenterCrop', 'crop_size': 64},
    {'type': 'PackInputs'},
]


def build(spec):
    config = Config(
        {'default_scope': 'mmpretrain', 'model': spec, 'test_dataloader': {'dataset': {'pipeline': PIPELINE}}}
    )
    model = vt.load(Source(config, 'tiny'), 'none')
    torch.manual_seed(5)
    for name, parameter in model.module.named_parameters():
        if 'pos' in name or 'bias_table' in name:
            torch.nn.init.normal_(parameter)
    return model


@pytest.mark.parametrize('name', NETWORKS)
def test_the_attention_of_a_size_of_the_users_own(name):
    model = build(NETWORKS[name])
    before = {key: value.clone() for key, value in model.module.state_dict().items()}
    side, patch = find_fixed_size(model.module).size[0], patch_size(model.module)[0]
    assert (side, patch) == (64, 32 if 'torchvision' in name else 16)
    sizing('128,128' if 'torchvision' in name else '128,96', 'crop')(model)
    result = vt.Attention()(model, model.read(np.random.default_rng(0).integers(0, 255, (70, 90, 3), np.uint8)))
    grid = (4, 4) if 'torchvision' in name else (8, 6)
    assert result.maps[0].values.shape == grid
    (mass,) = result.provenance['mass']
    assert mass['image'] + sum(mass['prefix']) == pytest.approx(1, abs=1e-5)
    after = model.module.state_dict()
    changed = {key for key, value in after.items() if not torch.equal(value, before[key])}
    words = ('pos_embed', 'patch_pos', 'pos_embedding', 'relative_position_bias_table', 'relative_position_index')
    assert changed and all(key.endswith(words) for key in changed)
    assert not model.module.training


@pytest.mark.parametrize('name', NETWORKS)
def test_the_size_it_was_built_for_gives_the_same(name):
    model = build(NETWORKS[name])
    image = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    module, own = model.module, model.module(image)
    adapt_to_input(model, (64, 64))
    assert model.module is module
    adapt_to_input(model, (128, 128))
    assert model.module is not module
    with pytest.raises((AssertionError, RuntimeError)):
        model.module(image)  # built for the other one now
    with torch.no_grad():
        assert model.module(torch.randn(1, 3, 128, 128))[0].shape == own[0].shape


def test_beits_biases_follow_the_distance_between_tokens():
    model = build(NETWORKS['BEiT'])
    attention = model.module.backbone.layers[0].attn
    with torch.no_grad():  # a bias that is the horizontal offset, as a share of the image's width
        across = torch.arange(7).float() - 3
        attention.relative_position_bias_table[:49] = (across.expand(7, 7).reshape(-1, 1)) / 4
    adapt_to_input(model, (64, 128))
    attention = model.module.backbone.layers[0].attn
    assert attention.window_size == (4, 8)
    bias = attention.relative_position_bias_table[attention.relative_position_index].detach()[1:, 1:, 0]
    places = torch.arange(8).float()
    offset = (places[:, None] - places[None])[None, :, None].expand(4, 8, 4, 8).reshape(32, 32) / 8
    assert torch.corrcoef(torch.stack([bias.flatten(), offset.flatten()]))[0, 1] > 0.99


@pytest.mark.parametrize(
    ('name', 'size', 'message'),
    [('torchvision ViT', (96, 128), 'square'), ('TNT', (8, 8), 'built for 64×64')],
)
def test_sizes_that_cannot_be(name, size, message):
    model = build(NETWORKS[name])
    module = model.module
    with pytest.raises(InputError, match=message) as error:
        adapt_to_input(model, size)
    assert error.value.parameter == 'img_size' and model.module is module


def test_others_are_left_alone():
    spec = classifier({'type': 'VisionTransformer', 'arch': ARCH, 'img_size': 64, 'patch_size': 16})
    model = build(spec)
    module = model.module
    adapt_to_input(model, (128, 96))
    assert model.module is module


@pytest.mark.parametrize('name', ['CaiT', 'timm ViT'])
def test_a_model_is_itself_again_after_it_was_sized(name):
    spec = {
        'type': 'TimmClassifier',
        'model_name': 'vit_tiny_patch16_224',
        'img_size': 64,
        'depth': 2,
        'num_classes': 5,
    }
    model = build(NETWORKS.get(name, spec))
    module, pipeline = model.module, model.pipeline
    sized = sizing('128,96', 'crop')(model)
    vt.Attention()(model, model.read(np.zeros((70, 90, 3), np.uint8)))
    sized.remove()
    assert model.module is module and model.pipeline is pipeline and model.adapt_to_input is None
    assert not any(child._forward_pre_hooks for child in module.modules())
