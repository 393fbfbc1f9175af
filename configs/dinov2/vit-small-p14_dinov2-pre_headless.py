# DINOv2 ViT-S/14 without a head, at the 518 pixels (37 x 37 tokens) it was trained at. mmpretrain's config has no
# pipeline; this one keeps the aspect ratio, and with it the trained position embedding.
_base_ = 'mmpretrain::dinov2/vit-small-p14_dinov2-pre_headless.py'

default_scope = 'mmpretrain'
load_from = 'demo://dinov2-vit-small-p14'

test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=518, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=518),
    dict(type='PackInputs'),
]
