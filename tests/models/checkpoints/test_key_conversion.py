"""Checkpoints of other projects in mmpretrain's VisionTransformer: the outputs are theirs, to 1e-5."""

import re

import pytest
import timm
import torch
import torchvision
from mmpretrain.registry import MODELS
from transformers import Dinov2Config, Dinov2Model, ViTConfig, ViTModel

from vistool.models.checkpoints.reading import Checkpoint
from vistool.models.checkpoints.weights import load_weights

ARCH = {'embed_dims': 32, 'num_layers': 3, 'num_heads': 2, 'feedforward_channels': 128}
SIZE = (42, 56)


def vision_transformer(size=SIZE, **more):
    backbone = dict(
        type='mmpretrain.VisionTransformer', arch=ARCH, img_size=size, patch_size=14, final_norm=True, **more
    )  # fmt: skip
    head = {'type': 'mmpretrain.VisionTransformerClsHead', 'num_classes': 5, 'in_channels': 32}
    model = MODELS.build({'type': 'mmpretrain.ImageClassifier', 'backbone': backbone, 'head': head})
    model.eval()
    return model


def published(**more):
    """timm's ViT, whose names are DINO's; DINOv2's where it scales its layers."""
    torch.manual_seed(0)
    model = timm.models.vision_transformer.VisionTransformer(
        img_size=SIZE, patch_size=14, embed_dim=32, depth=3, num_heads=2, num_classes=5, **more
    ).eval()
    for parameter in model.parameters():  # biases and scales start at constants, which would hide a mix-up
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def agree(ours, theirs, size=SIZE):
    image = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(ours(image), theirs(image), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('prefix', ['', 'backbone.', 'module.backbone.'])
def test_dino_and_timm(prefix, caplog):
    theirs, ours = published(), vision_transformer()
    with caplog.at_level('INFO', 'vistool'):
        report = load_weights(ours, Checkpoint({prefix + k: v for k, v in theirs.state_dict().items()}, source='x.pth'))
    assert report.renamed == 'converting the layout of timm and DINO' and report.renamed in caplog.text
    if not prefix:
        assert not str(report)
        agree(ours, theirs)
    agree(lambda x: ours.extract_feat(x)[0], lambda x: theirs.forward_features(x)[:, 0])


@pytest.mark.parametrize('chunks', [0, 2])
def test_dinov2_flat_and_in_chunks(chunks):
    theirs = published(init_values=1e-5)
    weights = {'mask_token': torch.zeros(1, 32), **theirs.state_dict()}
    if chunks:
        weights = {
            re.sub(r'^blocks\.(\d+)', lambda m: f'blocks.{int(m[1]) // chunks}.{m[1]}', k): v
            for k, v in weights.items()
        }
    ours = vision_transformer(layer_scale_init_value=1e-5)
    assert not str(load_weights(ours, Checkpoint(weights)))
    agree(ours, theirs)


@pytest.mark.parametrize('kind', ['vit', 'dinov2'])
def test_hugging_face(kind):
    size = (42, 42)
    sizes = {'hidden_size': 32, 'num_hidden_layers': 3, 'num_attention_heads': 2, 'patch_size': 14}
    if kind == 'vit':
        theirs = ViTModel(
            ViTConfig(**sizes, intermediate_size=128, image_size=size, layer_norm_eps=1e-6), add_pooling_layer=False
        )
    else:
        theirs = Dinov2Model(Dinov2Config(**sizes, mlp_ratio=4, image_size=size))
    theirs.eval()
    torch.manual_seed(0)
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    ours = vision_transformer(size, **({} if kind == 'vit' else {'layer_scale_init_value': 1e-5}))
    load_weights(ours, Checkpoint(dict(theirs.state_dict())))
    agree(lambda x: ours.extract_feat(x)[0], lambda x: theirs(x).last_hidden_state[:, 0], size)


@pytest.mark.parametrize('prefix', ['', 'module.'])
def test_mobilenet_v2_of_torchvision(prefix, caplog):
    torch.manual_seed(0)
    theirs = torchvision.models.mobilenet_v2(num_classes=5).eval()
    backbone = {'type': 'mmpretrain.MobileNetV2', 'widen_factor': 1.0}
    head = {'type': 'mmpretrain.LinearClsHead', 'num_classes': 5, 'in_channels': 1280}
    neck = {'type': 'mmpretrain.GlobalAveragePooling'}
    ours = MODELS.build({'type': 'mmpretrain.ImageClassifier', 'backbone': backbone, 'neck': neck, 'head': head}).eval()
    for value in theirs.state_dict().values():  # norms start alike, which would hide a mix-up
        if value.is_floating_point() and value.ndim == 1:
            value.uniform_(0.5, 1.5)
    with caplog.at_level('INFO', 'vistool'):
        report = load_weights(ours, Checkpoint({prefix + k: v for k, v in theirs.state_dict().items()}, source='x.pth'))
    assert not str(report) and "keys matched after converting torchvision's layout" in caplog.text
    agree(ours, theirs, (64, 64))


def test_a_checkpoint_of_its_own_is_left_alone():
    ours, again = vision_transformer(), vision_transformer()
    assert load_weights(again, Checkpoint(dict(ours.state_dict()))).renamed == ''
