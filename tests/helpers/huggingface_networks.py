"""Tiny detectors and segmenters of transformers with random weights."""

import torch
import transformers as t

_WIDTHS = {'embedding_size': 8, 'hidden_sizes': [8, 16, 16, 32], 'depths': [1, 1, 1, 1], 'layer_type': 'basic'}
_OWN = {'use_timm_backbone': False, 'use_pretrained_backbone': False, 'backbone': None, 'num_labels': 4}
_SMALL = {'encoder_attention_heads': 2, 'decoder_attention_heads': 2, 'encoder_ffn_dim': 16, 'decoder_ffn_dim': 16}


def detr():
    backbone = t.ResNetConfig(**_WIDTHS, out_features=['stage4'])
    options = {'d_model': 16, 'encoder_layers': 1, 'decoder_layers': 1, 'num_queries': 6}
    return t.DetrForObjectDetection(t.DetrConfig(backbone_config=backbone, **_OWN, **_SMALL, **options))


def rt_detr():
    backbone = t.RTDetrResNetConfig(**_WIDTHS, out_features=['stage2', 'stage3', 'stage4'])
    options = {
        'encoder_hidden_dim': 16, 'encoder_in_channels': [16, 16, 32], 'd_model': 16, 'decoder_layers': 1,
        'num_queries': 6, 'decoder_in_channels': [16, 16, 16], 'num_denoising': 0, 'hidden_expansion': 0.5,
    }  # fmt: skip
    return t.RTDetrForObjectDetection(t.RTDetrConfig(backbone_config=backbone, **_OWN, **_SMALL, **options))


def rt_detr_v2():
    backbone = t.RTDetrResNetConfig(**_WIDTHS, out_features=['stage2', 'stage3', 'stage4'])
    options = {
        'encoder_hidden_dim': 16, 'encoder_in_channels': [16, 16, 32], 'd_model': 16, 'decoder_layers': 2,
        'num_queries': 6, 'decoder_in_channels': [16, 16, 16], 'num_denoising': 0, 'hidden_expansion': 0.5,
        'decoder_n_points': 2,
    }  # fmt: skip
    return t.RTDetrV2ForObjectDetection(t.RTDetrV2Config(backbone_config=backbone, **_OWN, **_SMALL, **options))


def d_fine():
    backbone = t.HGNetV2Config(
        stem_channels=[3, 8, 8], embedding_size=8, hidden_sizes=[8, 16, 16, 32], depths=[1, 1, 1, 1],
        stage_in_channels=[8, 8, 16, 16], stage_mid_channels=[8, 8, 8, 8], stage_out_channels=[8, 16, 16, 32],
        stage_num_blocks=[1, 1, 1, 1], stage_downsample=[False, True, True, True], stage_numb_of_layers=[1, 1, 1, 1],
        stage_light_block=[False, False, True, True], stage_kernel_size=[3, 3, 3, 3],
        out_features=['stage2', 'stage3', 'stage4'],
    )  # fmt: skip
    options = {
        'encoder_hidden_dim': 16, 'encoder_in_channels': [16, 16, 32], 'd_model': 16, 'decoder_layers': 2,
        'num_queries': 6, 'decoder_in_channels': [16, 16, 16], 'num_denoising': 0, 'hidden_expansion': 0.5,
        'decoder_n_points': [3, 2, 1], 'feat_strides': [8, 16, 32],
    }  # fmt: skip
    return t.DFineForObjectDetection(t.DFineConfig(backbone_config=backbone, **_OWN, **_SMALL, **options))


def deformable_detr():
    backbone = t.ResNetConfig(**_WIDTHS, out_features=['stage2', 'stage3', 'stage4'])
    options = {
        'd_model': 32, 'encoder_layers': 1, 'decoder_layers': 2, 'num_queries': 6, 'num_feature_levels': 3,
        'encoder_n_points': 2, 'decoder_n_points': 3,
    }  # fmt: skip
    config = t.DeformableDetrConfig(backbone_config=backbone, **_OWN, **_SMALL, **options)
    return t.DeformableDetrForObjectDetection(config)


def yolos():
    options = {'hidden_size': 16, 'num_hidden_layers': 2, 'num_attention_heads': 2, 'intermediate_size': 16}
    sizes = {'image_size': [64, 96], 'patch_size': 8, 'num_detection_tokens': 6, 'num_labels': 4}
    return t.YolosForObjectDetection(t.YolosConfig(**options, **sizes))


def segformer():
    options = {'depths': [1, 1, 1, 1], 'hidden_sizes': [8, 8, 16, 16], 'num_attention_heads': [1, 1, 2, 2]}
    return t.SegformerForSemanticSegmentation(t.SegformerConfig(**options, decoder_hidden_size=16, num_labels=4))


def mask2former():
    backbone = t.SwinConfig(
        embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=4, image_size=64, patch_size=4,
        out_features=['stage1', 'stage2', 'stage3', 'stage4'],
    )  # fmt: skip
    options = {
        'feature_size': 32, 'mask_feature_size': 32, 'hidden_dim': 32, 'encoder_feedforward_dim': 16,
        'encoder_layers': 1, 'decoder_layers': 2, 'num_attention_heads': 2, 'dim_feedforward': 16, 'num_queries': 5,
    }  # fmt: skip
    config = t.Mask2FormerConfig(backbone_config=backbone, num_labels=4, **options)
    return t.Mask2FormerForUniversalSegmentation(config)


def built(make, seed=0):
    """A network with random weights, larger than the usual ones, so that predictions differ."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        network = make().eval()
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter.data.normal_(0, (1.2 / parameter[0].numel()) ** 0.5)
    return network
