# ViT-S/16 as trained by DINO (Caron et al., ICCV 2021), without a head, for attention maps. As in DINO's own script,
# the short side of the photo is resized to 480 pixels. The position embedding, trained at 224 pixels, is interpolated.
# DINO's published backbones load unchanged. For random weights, pass `none` as the checkpoint.
default_scope = 'mmpretrain'

model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='VisionTransformer',
        arch='deit-small',
        img_size=224,
        patch_size=16,
        final_norm=True,
        out_type='cls_token',
    ),
    neck=None,
    head=None,
)

data_preprocessor = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)

test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=480, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=480),
    dict(type='PackInputs'),
]
