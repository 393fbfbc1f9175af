# RepVGG-B3g4 on 4 GPUs with 64 images each, with AutoAugment and label smoothing with mixup. Of the 200 epochs, the
# first five are warmup and the rest follow a cosine. mmpretrain still has these parts, but no config that
# combines them.
_base_ = [
    'mmpretrain::_base_/models/repvgg-B3_lbs-mixup_in1k.py',
    'mmpretrain::_base_/datasets/imagenet_bs64_pil_resize_autoaug.py',
    'mmpretrain::_base_/schedules/imagenet_bs256_200e_coslr_warmup.py',
    'mmpretrain::_base_/default_runtime.py',
]

model = dict(backbone=dict(arch='B3g4'))
