# EfficientNet-Lite0 on ImageNet, the small pretrained network used in the demos, in timm's implementation. The image
# keeps its aspect ratio (short side 256, center crop 224). The normalization is the one the weights were trained with.
_base_ = 'mmpretrain::efficientnet/efficientnet-b0_8xb32_in1k.py'

model = dict(_delete_=True, type='TimmClassifier', model_name='tf_efficientnet_lite0', pretrained=False)
data_preprocessor = dict(mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5], to_rgb=True)
load_from = 'demo://efficientnet-lite0'

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=224, backend='pillow', interpolation='bicubic'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=256, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=224),
    dict(type='PackInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
