# DINOv2 ViT-S/14 without a head, at its training resolution of 518 pixels (37 x 37 tokens). mmpretrain's config has no
# pipeline. The pipeline here keeps the aspect ratio and uses the trained position embedding unchanged.
_base_ = 'mmpretrain::dinov2/vit-small-p14_dinov2-pre_headless.py'

default_scope = 'mmpretrain'
load_from = 'demo://dinov2-vit-small-p14'

test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=518, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=518),
    dict(type='PackInputs'),
]
