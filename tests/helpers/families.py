"""Every family of transformers, small and with random weights."""

import timm
import torch
import torchvision
from mmpretrain.registry import MODELS
from torch import nn
from transformers import (
    Dinov2Config,
    Dinov2Model,
    SwinConfig,
    SwinForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)

SMALL = {'embed_dims': 32, 'num_layers': 2, 'num_heads': 2, 'feedforward_channels': 64}
HF = {'hidden_size': 32, 'num_hidden_layers': 2, 'num_attention_heads': 2}
TIMM = {'embed_dim': 32, 'depth': 2, 'num_heads': 2}


def mm(kind, **more):
    return lambda: MODELS.build({'type': f'mmpretrain.{kind}', **more})


def tm(name, **more):
    return lambda: timm.create_model(name, **more)


class Cross(nn.Module):
    """A user's own: latents that ask a grid of patches."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 8, 8)
        self.latents = nn.Parameter(torch.randn(1, 5, 16))
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)

    def forward(self, x):
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        latents = self.latents.expand(len(x), -1, -1)
        return self.attention(latents, tokens, tokens, need_weights=False)[0].mean(1)


# name: (build, size, prefix tokens of the last layer)
GLOBAL = {
    'mmpretrain ViT': (mm('VisionTransformer', arch=SMALL, img_size=64, patch_size=16), (48, 64), 1),
    'mmpretrain DeiT': (mm('DistilledVisionTransformer', arch=SMALL, img_size=64, patch_size=16), (48, 64), 2),
    'mmpretrain DeiT3': (mm('DeiT3', arch=SMALL, img_size=64, patch_size=16), (48, 64), 1),
    'mmpretrain T2T': (
        mm(
            'T2T_ViT',
            img_size=64,
            num_layers=2,
            embed_dims=32,
            t2t_cfg={'token_dims': 16, 'use_performer': False},
            layer_cfgs={'num_heads': 2, 'feedforward_channels': 64},
        ),
        (64, 64),
        1,
    ),
    'mmpretrain DINOv2': (
        mm('VisionTransformer', arch=SMALL, img_size=56, patch_size=14, layer_scale_init_value=1e-5),
        (42, 56),
        1,
    ),
    'mmpretrain BEiT': (mm('BEiTViT', arch=SMALL, img_size=(48, 64), patch_size=16), (48, 64), 1),
    'mmpretrain EVA02': (mm('ViTEVA02', arch={**SMALL, 'mlp_ratio': 2}, img_size=56, patch_size=14), (56, 56), 1),
    'mmpretrain TNT': (
        mm(
            'TNT',
            arch={
                'embed_dims_outer': 32,
                'embed_dims_inner': 16,
                'num_layers': 2,
                'num_heads_outer': 2,
                'num_heads_inner': 2,
            },
            img_size=(48, 64),
        ),
        (48, 64),
        1,
    ),
    'mmpretrain MViT': (
        mm(
            'MViT',
            arch={'embed_dims': 16, 'num_layers': 4, 'num_heads': 1, 'downscale_indices': [1, 3]},
            img_size=64,
            out_scales=[2],
        ),
        (64, 96),
        0,
    ),
    'mmpretrain LeViT': (mm('LeViT', arch='128s', img_size=128), (128, 128), 0),
    'mmpretrain HiViT': (mm('HiViT', arch='tiny', img_size=64), (64, 64), 0),
    'timm ViT': (tm('vit_tiny_patch16_224', img_size=(48, 64), **TIMM), (48, 64), 1),
    'timm DeiT': (tm('deit_tiny_distilled_patch16_224', img_size=(48, 64), **TIMM), (48, 64), 2),
    'timm DINOv2 with registers': (tm('vit_small_patch14_reg4_dinov2', img_size=(42, 56), **TIMM), (42, 56), 5),
    'timm DINOv3': (tm('vit_small_patch16_dinov3', **TIMM), (48, 64), 5),
    'timm EVA02': (tm('eva02_tiny_patch14_224', img_size=(42, 56), **TIMM), (42, 56), 1),
    'timm BEiT': (tm('beit_base_patch16_224', img_size=(48, 64), **TIMM), (48, 64), 1),
    'timm CaiT': (tm('cait_xxs24_224', img_size=64, **TIMM), (64, 64), 1),
    'timm XCiT class attention': (tm('xcit_nano_12_p16_224', img_size=64, depth=2), (64, 64), 1),
    'torchvision ViT': (
        lambda: torchvision.models.VisionTransformer(64, 16, 2, 2, 32, 64),
        (64, 64),
        1,
    ),
    'Hugging Face ViT': (
        lambda: ViTForImageClassification(ViTConfig(**HF, intermediate_size=64, image_size=(48, 64))),
        (48, 64),
        1,
    ),
    'Hugging Face DINOv2': (lambda: Dinov2Model(Dinov2Config(**HF, image_size=56, patch_size=14)), (42, 56), 1),
    'cross-attention': (Cross, (48, 64), 0),
}

SAM = {'embed_dims': 32, 'num_layers': 2, 'num_heads': 2, 'feedforward_channels': 64, 'global_attn_indexes': []}
SWIN = {'embed_dims': 16, 'depths': [2, 2], 'num_heads': [2, 4]}
SVT = {
    'embed_dims': [16, 32],
    'num_heads': [2, 4],
    'mlp_ratios': [2, 2],
    'depths': [2, 2],
    'strides': [4, 2],
    'patch_sizes': [4, 2],
    'sr_ratios': [4, 2],
    'window_sizes': [7, 7],
}
# name: (build, size, grid of the layer, layer); the second block of a stage shifts its windows
WINDOWED = {
    'mmpretrain Swin': (
        mm('SwinTransformer', arch=SWIN, out_indices=(1,), img_size=64, window_size=4, pad_small_map=True),
        (60, 84),
        (15, 21),
        1,
    ),
    'mmpretrain SwinV2': (
        mm(
            'SwinTransformerV2',
            arch={**SWIN, 'extra_norm_every_n_blocks': 0},
            out_indices=(1,),
            img_size=64,
            window_size=[4, 4],
            pad_small_map=True,
        ),
        (64, 96),
        (16, 24),
        1,
    ),
    'mmpretrain ViT-SAM': (
        mm('ViTSAM', arch=SAM, img_size=96, patch_size=16, window_size=4, out_channels=8),
        (96, 96),
        (6, 6),
        1,
    ),
    'mmpretrain Twins SVT': (mm('SVT', arch=SVT, out_indices=(1,), qkv_bias=True), (64, 80), (16, 20), 0),
    'timm Swin': (
        tm(
            'swin_tiny_patch4_window7_224',
            img_size=(64, 84),
            window_size=4,
            embed_dim=16,
            depths=(2, 2),
            num_heads=(2, 4),
        ),
        (64, 84),
        (16, 21),
        1,
    ),
    'timm MaxViT': (
        tm('maxvit_rmlp_pico_rw_256', img_size=64, depths=(1,), embed_dim=(32,), block_type=('M',), stem_width=8),
        (64, 64),
        (16, 16),
        1,
    ),
    'torchvision Swin': (
        lambda: torchvision.models.SwinTransformer([4, 4], 16, [2, 2], [2, 4], [4, 4]),
        (60, 84),
        (15, 21),
        1,
    ),
    'Hugging Face Swin': (
        lambda: SwinForImageClassification(
            SwinConfig(image_size=64, embed_dim=16, depths=[2, 2], num_heads=[2, 4], window_size=4)
        ),
        (60, 84),
        (15, 21),
        1,
    ),
}

CHANNELS = {
    'timm XCiT': (tm('xcit_nano_12_p16_224', img_size=64, depth=2), (64, 64), 0),
    'timm EdgeNeXt': (tm('edgenext_xx_small'), (64, 96), -1),
    'timm DaViT': (tm('davit_tiny', depths=(1, 1, 1, 1)), (64, 96), -1),
}
