# demo/dataset: nine labeled photos with augmentations that are common in ImageNet training. The path is relative to
# this file, so the config works from any current folder.
_base_ = 'mmpretrain::_base_/datasets/imagenet_bs32.py'

default_scope = 'mmpretrain'
data_root = '{{ fileDirname }}/../../demo/dataset'

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=224),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='ColorJitter', brightness=0.3, contrast=0.3, saturation=0.3, hue=0.05),
    dict(type='RandomErasing', erase_prob=0.5, mode='const', fill_color=[104, 116, 124]),
    dict(type='PackInputs'),
]
train_dataloader = dict(
    batch_size=9,
    num_workers=0,
    dataset=dict(
        data_root=data_root,
        split='',
        ann_file='train.txt',
        pipeline=train_pipeline,
        serialize_data=False,  # not worth it for nine samples
    ),
)
val_dataloader = dict(batch_size=6, num_workers=0, dataset=dict(data_root=data_root, split='', ann_file='val.txt'))
test_dataloader = val_dataloader
