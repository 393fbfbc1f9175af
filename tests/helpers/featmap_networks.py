"""Twenty small networks of four packages, each with a layer and how its output is laid out."""

from functools import partial

import torch


def maps(x):
    return x


def last(x):
    return x.permute(0, 3, 1, 2)


def tokens(x, prefix, height, width):
    return x[:, prefix:].transpose(1, 2).reshape(len(x), -1, height, width)


def grid(prefix, height, width):
    return partial(tokens, prefix=prefix, height=height, width=width)


def mm(**spec):
    def build():
        import mmpretrain.models  # noqa: F401
        from mmpretrain.registry import MODELS

        return MODELS.build(spec)

    return build


def tv(name, **options):
    def build():
        import torchvision.models as models

        return getattr(models, name)(**options)

    return build


def tm(name, **options):
    def build():
        import timm

        return timm.create_model(name, **options)

    return build


def hf(name, **options):
    def build():
        import transformers

        config = getattr(transformers, f'{name}Config')(**options)
        return getattr(transformers, f'{name}Model')(config)

    return build


SMALL = {'embed_dims': 24, 'num_layers': 3, 'num_heads': 2, 'feedforward_channels': 48}
TRANSFORMER = {'hidden_size': 24, 'num_hidden_layers': 3, 'num_attention_heads': 2, 'intermediate_size': 48}

NETWORKS = {
    # name: (build, (H, W) of the input, layer, layout)
    'mm.ResNet': (mm(type='ResNet', depth=18, base_channels=8), (64, 96), 'layer2', maps),
    'mm.ConvNeXt': (
        mm(type='ConvNeXt', arch={'depths': [1, 1, 1, 1], 'channels': [8, 8, 16, 16]}),
        (64, 96),
        'stages.2.0',
        maps,
    ),
    'mm.MobileNetV2': (mm(type='MobileNetV2', widen_factor=0.25), (64, 96), 'layer3.1', maps),
    'mm.VisionTransformer': (
        mm(type='VisionTransformer', arch=SMALL, img_size=(64, 96), patch_size=16),
        (64, 96),
        'layers.1.ffn',
        grid(1, 4, 6),
    ),
    'mm.SwinTransformer': (
        mm(
            type='SwinTransformer',
            arch={'embed_dims': 12, 'depths': [1, 2], 'num_heads': [2, 2]},
            img_size=(56, 112),
            out_indices=(1,),
        ),
        (56, 112),
        'stages.1.blocks.0',
        grid(0, 7, 14),
    ),
    'tv.resnet18': (tv('resnet18'), (64, 96), 'layer3.0.bn1', maps),
    'tv.mobilenet_v3_small': (tv('mobilenet_v3_small'), (64, 96), 'features.4', maps),
    'tv.shufflenet': (tv('shufflenet_v2_x0_5'), (64, 96), 'stage3', maps),
    'tv.VisionTransformer': (
        tv('VisionTransformer', image_size=64, patch_size=16, num_layers=3, num_heads=2, hidden_dim=24, mlp_dim=48),
        (64, 64),
        'encoder.layers.encoder_layer_1',
        grid(1, 4, 4),
    ),
    'tv.SwinTransformer': (
        tv(
            'SwinTransformer',
            patch_size=[4, 4],
            embed_dim=12,
            depths=[1, 1],
            num_heads=[2, 2],
            window_size=[7, 7],
        ),
        (56, 112),
        'features.1.0',
        last,
    ),
    'timm.resnet': (tm('test_resnet'), (64, 96), 'layer3', maps),
    'timm.efficientnet': (tm('test_efficientnet'), (64, 96), 'blocks.2', maps),
    'timm.convnext': (tm('test_convnext'), (64, 96), 'stages.1.blocks.0', maps),
    'timm.vit': (tm('test_vit', img_size=(64, 96)), (64, 96), 'blocks.2', grid(1, 4, 6)),
    'timm.swin': (
        tm('swin_tiny_patch4_window7_224', embed_dim=12, depths=(1, 2), num_heads=(2, 2), img_size=(56, 112)),
        (56, 112),
        'layers.1.blocks.0',
        last,
    ),
    'hf.ViT': (hf('ViT', image_size=(64, 96), **TRANSFORMER), (64, 96), 'NORM1', grid(1, 4, 6)),
    'hf.Dinov2': (
        hf('Dinov2', image_size=56, patch_size=14, hidden_size=24, num_hidden_layers=3, num_attention_heads=2),
        (56, 56),
        'layernorm',
        grid(1, 4, 4),
    ),
    'hf.ResNet': (
        hf('ResNet', embedding_size=8, hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1]),
        (64, 96),
        'encoder.stages.1',
        maps,
    ),
    'hf.ConvNext': (
        hf('ConvNext', hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1]),
        (64, 96),
        'encoder.stages.2',
        maps,
    ),
    'hf.Swin': (
        hf('Swin', image_size=(56, 112), embed_dim=12, depths=[1, 2], num_heads=[2, 2], window_size=7),
        (56, 112),
        'layernorm',
        grid(0, 7, 14),
    ),
}


def build(name):
    """The network in eval mode, an input for two images, the layer's name and its layout."""
    make, size, layer, layout = NETWORKS[name]
    torch.manual_seed(0)
    network = make()
    network.eval()
    if layer == 'NORM1':  # Hugging Face renames its blocks from release to release
        names = [n for n, module in network.named_modules() if type(module).__name__ == 'ViTLayer']
        layer = names[1]
    return network, torch.randn(2, 3, *size), layer, layout
