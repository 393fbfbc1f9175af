"""Small networks of many families, with what is true of each: its default layer, and the grid it makes of an input.

Depth and width are cut down where a class allows it; weights are random.
"""

# ruff: noqa: C408 (configs are written as everywhere in OpenMMLab)

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import timm
import torch
from torch import nn


@dataclass(frozen=True)
class Case:
    """A network, the input size ``(H, W)`` it is tried at, its default layer and that layer's grid ``(h, w)``."""

    name: str
    make: Callable[[], nn.Module]
    size: tuple[int, int]
    layer: str
    grid: tuple[int, int]


CLASSES = 5


def mm(backbone, channels, head='LinearClsHead', neck='GlobalAveragePooling', **head_options):
    """An mmpretrain classifier around ``backbone``."""
    from mmengine.registry import DefaultScope
    from mmpretrain.registry import MODELS

    config = dict(
        type='ImageClassifier',
        backbone=backbone,
        neck=dict(type=neck) if isinstance(neck, str) else neck,
        head=dict(type=head, num_classes=CLASSES, in_channels=channels, **head_options),
    )
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return MODELS.build(config)


TINY = dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64)


def mm_vit(kind, head='VisionTransformerClsHead', arch=TINY, **options):
    return mm(dict(type=kind, arch=arch, patch_size=16, **options), arch.get('embed_dims', 32), head, None)


def tv(name, **options):
    import torchvision

    return torchvision.models.get_model(name, weights=None, num_classes=CLASSES, **options)


def tv_class(kind, **options):
    import torchvision.models as models

    return getattr(models, kind)(num_classes=CLASSES, **options)


def tv_swin(v2=False):
    from torchvision.models import swin_transformer as swin

    kind = dict(block=swin.SwinTransformerBlockV2, downsample_layer=swin.PatchMergingV2) if v2 else {}
    return swin.SwinTransformer([4, 4], 16, [1, 1, 1, 2], [1, 1, 2, 2], [4, 4], num_classes=CLASSES, **kind)


def timm_model(name, **options):
    import timm

    return timm.create_model(name, num_classes=CLASSES, **options)


def hf(kind, **options):
    import transformers

    config = getattr(transformers, f'{kind}Config')(num_labels=CLASSES, **options)
    return getattr(transformers, f'{kind}ForImageClassification')(config)


def hf_vit(kind, **options):
    return hf(
        kind,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        **{'image_size': TOKENS, 'patch_size': 16, **options},
    )


HF_SWIN = dict(embed_dim=16, depths=[1, 1, 1, 2], num_heads=[1, 1, 2, 2], image_size=(96, 160), window_size=3)
SWIN_TINY = dict(embed_dims=32, depths=[1, 1, 1, 2], num_heads=[1, 1, 2, 2])
SWINV2_TINY = dict(**SWIN_TINY, extra_norm_every_n_blocks=0)
TWINS_TINY = dict(
    embed_dims=[16, 16, 32, 32],
    depths=[1, 1, 1, 2],
    num_heads=[1, 1, 2, 2],
    patch_sizes=[4, 2, 2, 2],
    strides=[4, 2, 2, 2],
    mlp_ratios=[2, 2, 2, 2],
    sr_ratios=[8, 4, 2, 1],
)
HRNET = dict(
    stage1=dict(num_modules=1, num_branches=1, block='BOTTLENECK', num_blocks=(1,), num_channels=(16,)),
    stage2=dict(num_modules=1, num_branches=2, block='BASIC', num_blocks=(1, 1), num_channels=(8, 16)),
    stage3=dict(num_modules=1, num_branches=3, block='BASIC', num_blocks=(1, 1, 1), num_channels=(8, 16, 32)),
    stage4=dict(num_modules=1, num_branches=4, block='BASIC', num_blocks=(1, 1, 1, 1), num_channels=(8, 16, 32, 64)),
)
MVIT = dict(embed_dims=32, num_layers=4, num_heads=1, downscale_indices=[1, 2, 3])
LEVIT = dict(embed_dims=[32, 32, 64], num_heads=[2, 2, 4], depths=[1, 1, 1], key_dims=[8, 8, 8])
TINYVIT = dict(channels=[16, 32, 32, 64], num_heads=[1, 2, 2, 2], depths=[1, 1, 1, 2])
T2T = dict(num_heads=2, num_layers=2, embed_dims=32, mlp_ratio=2)
WIDE, MAP = (96, 160), (3, 5)
TOKENS, SMALL = (64, 96), (2, 3)
"""The usual sizes, and what stride 32 makes of them; TOKENS at patch size 16 are 4 × 6."""


def _mmpretrain():
    yield 'ResNet', lambda: mm(dict(type='ResNet', depth=18), 512), WIDE, 'backbone.layer4', MAP
    yield (
        'ResNeXt',
        lambda: mm(dict(type='ResNeXt', depth=50, groups=4, width_per_group=4), 2048),
        TOKENS,
        ('backbone.layer4'),
        SMALL,
    )
    yield 'SE-ResNet', lambda: mm(dict(type='SEResNet', depth=50), 2048), TOKENS, 'backbone.layer4', SMALL
    yield (
        'HRNet',
        lambda: mm(
            dict(type='HRNet', extra=HRNET),
            2048,
            neck=[dict(type='HRFuseScales', in_channels=(8, 16, 32, 64)), dict(type='GlobalAveragePooling')],
        ),
        WIDE,
        'neck.0.final_layer',
        MAP,
    )
    yield 'MobileNetV2', lambda: mm(dict(type='MobileNetV2', widen_factor=0.25), 1280), WIDE, 'backbone.conv2', MAP
    yield 'MobileNetV3', lambda: mm(dict(type='MobileNetV3', arch='small'), 576), TOKENS, 'backbone.layer12', SMALL
    yield 'EfficientNet', lambda: mm(dict(type='EfficientNet', arch='b0'), 1280), TOKENS, 'backbone.layers.6', SMALL
    yield 'EfficientNetV2', lambda: mm(dict(type='EfficientNetV2', arch='b0'), 1280), TOKENS, 'backbone.layers.7', SMALL
    yield 'RegNet', lambda: mm(dict(type='RegNet', arch='regnetx_400mf'), 384), TOKENS, 'backbone.layer4', SMALL
    yield 'RepVGG', lambda: mm(dict(type='RepVGG', arch='A0'), 1280), TOKENS, 'backbone.stage_4', SMALL
    yield 'VGG', lambda: mm(dict(type='VGG', depth=11), 512), WIDE, 'backbone.features.11', (6, 10)
    yield (
        'VGG-BN',
        lambda: mm(dict(type='VGG', depth=11, norm_cfg=dict(type='BN')), 512),
        WIDE,
        ('backbone.features.11'),
        (6, 10),
    )
    yield (
        'DenseNet',
        lambda: mm(dict(type='DenseNet', arch=dict(growth_rate=8, depths=[1, 1, 1, 2], init_channels=16)), 25),
        WIDE,
        'backbone.transitions.3',
        MAP,
    )
    yield (
        'ConvNeXt',
        lambda: mm(dict(type='ConvNeXt', arch=dict(depths=[1, 1, 1, 2], channels=[16, 16, 32, 32])), 32, neck=None),
        WIDE,
        'backbone.stages.3',
        MAP,
    )
    yield 'ViT', lambda: mm_vit('VisionTransformer', img_size=TOKENS), TOKENS, 'backbone.layers.1.ln1', (4, 6)
    yield (
        'ViT, resized position embedding',
        lambda: mm_vit('VisionTransformer', img_size=32),
        TOKENS,
        ('backbone.layers.1.ln1'),
        (4, 6),
    )
    yield (
        'ViT, averaged',
        lambda: mm_vit('VisionTransformer', 'LinearClsHead', out_type='avg_featmap', img_size=TOKENS),
        TOKENS,
        'backbone.ln1',
        (4, 6),
    )
    yield 'DeiT', lambda: mm_vit('VisionTransformer', img_size=TOKENS), TOKENS, 'backbone.layers.1.ln1', (4, 6)
    yield (
        'DeiT, distilled',
        lambda: mm_vit('DistilledVisionTransformer', 'DeiTClsHead', img_size=TOKENS),
        TOKENS,
        ('backbone.layers.1.ln1'),
        (4, 6),
    )
    yield 'DeiT3', lambda: mm_vit('DeiT3', img_size=TOKENS), TOKENS, 'backbone.layers.1.ln1#1', (4, 6)
    yield (
        'T2T',
        lambda: mm(
            dict(
                type='T2T_ViT',
                img_size=64,
                in_channels=3,
                embed_dims=32,
                t2t_cfg=dict(token_dims=16, use_performer=False),
                num_layers=2,
                layer_cfgs=dict(num_heads=2, feedforward_channels=64),
            ),
            32,
            'VisionTransformerClsHead',
            None,
        ),
        (64, 64),
        'backbone.encoder.1.ln1',
        (4, 4),
    )
    yield (
        'Swin',
        lambda: mm(dict(type='SwinTransformer', arch=SWIN_TINY, pad_small_map=True, window_size=4), 256),
        WIDE,
        'backbone.norm3',
        MAP,
    )
    yield (
        'SwinV2',
        lambda: mm(
            dict(type='SwinTransformerV2', arch=SWINV2_TINY, img_size=WIDE, pad_small_map=True, window_size=4), 256
        ),
        WIDE,
        'backbone.norm3',
        MAP,
    )
    yield 'BEiT', lambda: mm_vit('BEiTViT', 'LinearClsHead', img_size=TOKENS), TOKENS, 'backbone.layers.1', (4, 6)
    yield (
        'BEiT, class token',
        lambda: mm_vit('BEiTViT', 'LinearClsHead', img_size=TOKENS, out_type='cls_token', final_norm=True),
        TOKENS,
        'backbone.layers.1.ln1',
        (4, 6),
    )
    yield (
        'EVA02',
        lambda: mm_vit('ViTEVA02', 'LinearClsHead', img_size=TOKENS, final_norm=False, out_type='avg_featmap'),
        TOKENS,
        'backbone.layers.1',
        (4, 6),
    )
    yield 'MViT', lambda: mm(dict(type='MViT', arch=MVIT, img_size=96), 256), WIDE, 'backbone.norm3', MAP
    yield (
        'PoolFormer',
        lambda: mm(
            dict(
                type='PoolFormer',
                arch=dict(
                    layers=[1, 1, 1, 2], embed_dims=[8, 16, 24, 32], mlp_ratios=[2] * 4, layer_scale_init_value=1.0
                ),
            ),
            32,
        ),
        WIDE,
        'backbone.norm6',
        MAP,
    )
    yield (
        'TinyViT',
        lambda: mm(dict(type='TinyViT', arch=TINYVIT, img_size=WIDE, window_size=[7, 7, 14, 7]), 64, neck=None),
        WIDE,
        'backbone.stages.3',
        MAP,
    )
    yield (
        'TNT',
        lambda: mm(
            dict(
                type='TNT',
                arch=dict(embed_dims_outer=32, embed_dims_inner=8, num_layers=2, num_heads_outer=2, num_heads_inner=2),
                img_size=TOKENS,
            ),
            32,
            neck=None,
        ),
        TOKENS,
        'backbone.layers.1.outer_block.norm_attn',
        (4, 6),
    )
    yield 'Twins PCPVT', lambda: mm(dict(type='PCPVT', arch=TWINS_TINY), 32), WIDE, 'backbone.norm_after_stage3', MAP
    yield (
        'Twins SVT',
        lambda: mm(dict(type='SVT', arch=dict(TWINS_TINY, window_sizes=[7, 7, 7, 7])), 32),
        WIDE,
        'backbone.norm_after_stage3',
        MAP,
    )
    yield 'MobileViT', lambda: mm(dict(type='MobileViT', arch='xx_small'), 320), WIDE, 'backbone.conv_1x1_exp', MAP
    yield (
        'XCiT',
        lambda: mm(
            dict(type='XCiT', img_size=TOKENS, embed_dims=32, depth=2, num_heads=2, cls_attn_layers=2), 32, neck=None
        ),
        TOKENS,
        'backbone.xca_layers.1',
        (4, 6),
    )
    yield (
        'LeViT',
        lambda: mm(dict(type='LeViT', arch='128s', img_size=256), 384, 'LeViTClsHead', distillation=True),
        (256, 256),
        'backbone.stages.2',
        (4, 4),
    )


def _others():
    yield 'torchvision ResNet', lambda: tv('resnet18'), TOKENS, 'layer4', SMALL
    yield 'torchvision VGG', lambda: tv('vgg11'), WIDE, 'features.19', (6, 10)
    yield 'torchvision DenseNet', lambda: tv_class('DenseNet', block_config=(1, 1, 1, 2)), WIDE, 'features+relu', MAP
    yield 'torchvision MobileNetV3', lambda: tv('mobilenet_v3_small'), TOKENS, 'features.12', SMALL
    yield 'torchvision RegNet', lambda: tv('regnet_x_400mf'), TOKENS, 'trunk_output.block4', SMALL
    yield (
        'torchvision ViT',
        lambda: tv_class(
            'VisionTransformer', image_size=64, patch_size=16, num_layers=2, num_heads=2, hidden_dim=32, mlp_dim=64
        ),
        (64, 64),
        'encoder.layers.encoder_layer_1.ln_1',
        (4, 4),
    )
    yield 'torchvision Swin', tv_swin, WIDE, 'norm', MAP
    yield 'torchvision Swin-V2', lambda: tv_swin(True), WIDE, 'norm', MAP
    yield 'timm ResNet', lambda: timm_model('resnet18'), TOKENS, 'layer4', SMALL
    small = dict(img_size=TOKENS, embed_dim=32, depth=2, num_heads=2)
    yield 'timm ViT', lambda: timm_model('vit_tiny_patch16_224', **small), TOKENS, 'blocks.1.norm1', (4, 6)
    yield (
        'timm ViT, averaged',
        lambda: timm_model('vit_tiny_patch16_224', **small, global_pool='avg'),
        TOKENS,
        'blocks.1',
        (4, 6),
    )
    yield (
        'timm ViT, registers',
        lambda: timm_model('vit_tiny_patch16_224', **small, reg_tokens=4),
        TOKENS,
        ('blocks.1.norm1'),
        (4, 6),
    )
    yield (
        'timm DeiT, distilled',
        lambda: timm_model('deit_tiny_distilled_patch16_224', **small),
        TOKENS,
        ('blocks.1.norm1'),
        (4, 6),
    )
    yield 'timm BEiT', lambda: timm_model('beit_base_patch16_224', **small), TOKENS, 'blocks.1', (4, 6)
    yield (
        'timm EVA02',
        lambda: timm_model('eva02_tiny_patch14_336', img_size=(56, 84), embed_dim=32, depth=2, num_heads=2),
        (56, 84),
        'blocks.1',
        (4, 6),
    )
    yield 'timm CaiT', lambda: timm_model('cait_xxs24_224', **small), TOKENS, 'blocks.1', (4, 6)
    yield 'timm XCiT', lambda: timm_model('xcit_nano_12_p16_224', **small), TOKENS, 'blocks.1', (4, 6)
    yield (
        'timm ConvNeXt',
        lambda: timm_model('convnext_atto', depths=(1, 1, 1, 2), dims=(16, 16, 32, 32)),
        WIDE,
        'stages.3',
        MAP,
    )
    yield (
        'timm Swin',
        lambda: timm_model(
            'swin_tiny_patch4_window7_224', img_size=WIDE, embed_dim=16, depths=(1, 1, 1, 2), num_heads=(1, 1, 2, 2)
        ),
        WIDE,
        'norm',
        MAP,
    )
    yield (
        'timm MaxViT',
        lambda: timm_model(
            'maxvit_rmlp_pico_rw_256', img_size=(64, 96), depths=(1, 1, 1, 1), embed_dim=(32, 32, 32, 64)
        ),
        (64, 96),
        'norm',
        (2, 3),
    )
    yield 'HF ViT', lambda: hf_vit('ViT'), TOKENS, 'vit.encoder.layer.1.layernorm_before', (4, 6)
    yield 'HF DeiT', lambda: hf_vit('DeiT'), TOKENS, 'deit.encoder.layer.1.layernorm_before', (4, 6)
    yield 'HF Swin', lambda: hf('Swin', **HF_SWIN), WIDE, 'swin.layernorm', MAP
    yield 'HF Swin-V2', lambda: hf('Swinv2', **HF_SWIN), WIDE, 'swinv2.layernorm', MAP
    yield 'HF DINOv2', lambda: hf_vit('Dinov2', image_size=64), TOKENS, 'dinov2.layernorm', (4, 6)
    yield (
        'HF ResNet',
        lambda: hf('ResNet', embedding_size=8, hidden_sizes=[16, 16, 32, 32], depths=[1, 1, 1, 1]),
        WIDE,
        'resnet.encoder.stages.3',
        MAP,
    )
    yield (
        'HF ConvNeXt',
        lambda: hf('ConvNext', hidden_sizes=[16, 16, 32, 32], depths=[1, 1, 1, 2]),
        WIDE,
        ('convnext.encoder.stages.3'),
        MAP,
    )


CASES = [Case(*entry) for entry in (*_mmpretrain(), *_others())]


def vit_of_uneven_attention(size):
    """A tiny vision transformer with random weights, whose attention is far from uniform."""
    torch.manual_seed(0)
    model = timm.create_model('vit_tiny_patch16_224', img_size=size, embed_dim=32, depth=3, num_heads=2, num_classes=7)
    for name, parameter in model.named_parameters():
        if 'qkv' in name:
            torch.nn.init.normal_(parameter, std=0.4)
    return model.eval()
