# timm's ViT-Ti/16 with a random test pipeline: a 480-pixel crop, padded if the image is smaller, resized to 224 pixels.
# `--seed` determines the crop. The mean and standard deviation are those of timm's weights.
_base_ = 'mmpretrain::_base_/datasets/imagenet_bs64_mixer_224.py'

default_scope = 'mmpretrain'
model = dict(type='TimmClassifier', model_name='vit_tiny_patch16_224', pretrained=False)

test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomCrop', crop_size=480, pad_if_needed=True),
    dict(type='Resize', scale=224, backend='pillow', interpolation='bilinear'),
    dict(type='PackInputs'),
]
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
