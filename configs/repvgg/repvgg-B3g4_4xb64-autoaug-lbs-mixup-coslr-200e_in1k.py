# RepVGG-B3g4 as its name says: 4 GPUs of 64 images, AutoAugment, label smoothing with mixup, and 200 epochs of cosine
# after five of warm-up. mmpretrain has these parts, but no longer a config that puts them together.
_base_ = [
    'mmpretrain::_base_/models/repvgg-B3_lbs-mixup_in1k.py',
    'mmpretrain::_base_/datasets/imagenet_bs64_pil_resize_autoaug.py',
    'mmpretrain::_base_/schedules/imagenet_bs256_200e_coslr_warmup.py',
    'mmpretrain::_base_/default_runtime.py',
]

model = dict(backbone=dict(arch='B3g4'))
