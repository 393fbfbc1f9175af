"""The transforms that have a rule, in the ways in which configs use them."""

from __future__ import annotations

from vistool.data.pipelines import Pipeline, build_transforms

SIZE = (61, 84)  # odd, even, not square


def mm(*steps):
    return Pipeline(build_transforms([*steps, {'type': 'PackInputs'}], 'mmpretrain'))


def step(type, **kwargs):
    return {'type': type, **kwargs}


RESIZES = [
    step('Resize', scale=(50, 37)),
    step('Resize', scale=(131, 40)),
    step('Resize', scale=(64, 48), keep_ratio=True),
    step('Resize', scale=(190, 133), keep_ratio=True, backend='pillow'),
    step('Resize', scale_factor=1.37, keep_ratio=True, interpolation='nearest'),
    step('RandomResize', scale=(70, 60), ratio_range=(0.6, 1.6), keep_ratio=True),
    step('RandomResize', scale=[(40, 50), (90, 80)], keep_ratio=False),
    step('RandomChoiceResize', scales=[(45, 45), (90, 70), (120, 41)], keep_ratio=False),
    step('ResizeEdge', scale=45, edge='short'),
    step('ResizeEdge', scale=101, edge='long', interpolation='bicubic'),
    step('ResizeEdge', scale=67, edge='width', backend='pillow', interpolation='lanczos'),
    step('ResizeEdge', scale=67, edge='height', interpolation='area'),
]
CROPS = [
    step('Pad', size=(97, 80)),
    step('Pad', size_divisor=32),
    step('Pad', pad_to_square=True),
    step('Pad', pad_to_square=True, size_divisor=16),
    step('CenterCrop', crop_size=48),
    step('CenterCrop', crop_size=(90, 50)),
    step('CenterCrop', crop_size=(91, 50), auto_pad=True),
    step('CenterCrop', crop_size=101, auto_pad=True),
    step('RandomCrop', crop_size=(50, 61)),
    step('RandomCrop', crop_size=(61, 84)),
    step('RandomCrop', crop_size=70),
    step('RandomCrop', crop_size=70, padding=4),
    step('RandomCrop', crop_size=70, padding=(9, 3), pad_if_needed=True),
    step('RandomCrop', crop_size=(90, 101), padding=(1, 2, 3, 4), pad_if_needed=True),
    step('RandomResizedCrop', scale=(60, 77), crop_ratio_range=(0.5, 1.0)),
    step('RandomResizedCrop', scale=64, crop_ratio_range=(5.0, 6.0), backend='pillow'),
    step('EfficientNetRandomCrop', scale=64, crop_ratio_range=(0.6, 1.0)),
    step('EfficientNetRandomCrop', scale=57, max_attempts=0, crop_padding=9),
    step('EfficientNetCenterCrop', crop_size=57, crop_padding=11),
    step('EfficientNetCenterCrop', crop_size=64, backend='pillow'),
    step('RandomTranslatePad', size=128),
    step('RandomTranslatePad', size=117, aug_translate=True),
]
FLIPS = [
    step('RandomFlip', prob=1.0, direction='horizontal'),
    step('RandomFlip', prob=1.0, direction='vertical'),
    step('RandomFlip', prob=1.0, direction='diagonal'),
    step('RandomFlip', prob=[0.3, 0.3, 0.3], direction=['horizontal', 'vertical', 'diagonal']),
]
WARPS = [
    step('Rotate', angle=23.0, prob=1.0, pad_val=0),
    step('Rotate', angle=-31.0, center=(20.0, 31.0), scale=0.8, prob=1.0, pad_val=0, interpolation='bilinear'),
    step('Rotate', magnitude_range=(0, 30), magnitude_level=7, magnitude_std='inf', prob=0.7, pad_val=0),
    step('Shear', magnitude=0.3, prob=1.0, pad_val=0),
    step('Shear', magnitude=0.21, prob=1.0, pad_val=0, direction='vertical', interpolation='nearest'),
    step('Translate', magnitude=0.13, prob=1.0, pad_val=0),
    step('Translate', magnitude=0.17, prob=0.5, pad_val=0, direction='vertical', interpolation='bilinear'),
]
NESTED = [
    step('RandomChoice', transforms=[FLIPS[:1], [RESIZES[0], CROPS[1]], WARPS[:1]]),
    step('RandomApply', transforms=[FLIPS[0], CROPS[4]], prob=0.5),
    step('Compose', transforms=[RESIZES[1], FLIPS[2], CROPS[12]]),
    step('KeyMapper', transforms=[RESIZES[2], FLIPS[1]], mapping={'img': 'img'}, remapping={'img': 'img'}),
    step('AutoAugment', policies=[[WARPS[0], WARPS[3]], [WARPS[5], WARPS[1]]]),
    step('RandAugment', policies=[WARPS[3], WARPS[4], FLIPS[0]], num_policies=2, magnitude_level=5),
]
TORCHVISION = [
    step('torchvision/Resize', size=40),
    step('torchvision/Resize', size=(90, 57), interpolation='bicubic'),
    step('torchvision/Resize', size=70, max_size=75),
    step('torchvision/CenterCrop', size=47),
    step('torchvision/CenterCrop', size=(62, 101)),
    step('torchvision/RandomCrop', size=(40, 70)),
    step('torchvision/RandomCrop', size=(64, 70), padding=(4, 7), pad_if_needed=True),
    step('torchvision/RandomCrop', size=(77, 101), pad_if_needed=True),
    step('torchvision/RandomResizedCrop', size=50, scale=(0.5, 1.0)),
    step('torchvision/RandomHorizontalFlip', p=0.5),
    step('torchvision/RandomVerticalFlip', p=0.5),
    step('torchvision/Pad', padding=(3, 4, 5, 6)),
    step('torchvision/RandomRotation', degrees=40),
    step('torchvision/RandomRotation', degrees=40, expand=True, interpolation='bilinear'),
    step('torchvision/RandomRotation', degrees=40, center=(20, 30)),
    step('torchvision/RandomRotation', degrees=40, center=(20, 30), expand=True),
    step('torchvision/RandomAffine', degrees=20, translate=(0.1, 0.2), scale=(0.7, 1.2), shear=(-10, 10, -8, 8)),
    step('torchvision/RandomAffine', degrees=20, shear=12, center=(30, 20), interpolation='bilinear'),
]


def label(value):
    shown = {k: v for k, v in value.items() if k not in ('type', 'transforms', 'policies')}
    return ','.join([value['type'], *(f'{k}={v}' for k, v in shown.items())])
