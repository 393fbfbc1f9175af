"""A tiny training on generated shapes with mmengine's Runner: circles and crosses in noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from PIL import Image

NAMES = ('circle', 'cross')


def shape(kind: int, generator: np.random.Generator, side: int = 32) -> np.ndarray:
    """A circle or a cross at a random place in noise, uint8 ``(side, side, 3)``."""
    picture = generator.integers(0, 90, (side, side, 3), np.uint8)
    y, x = np.mgrid[:side, :side] - generator.integers(side // 3, 2 * side // 3, (2, 1, 1))
    radius, near, far = side / 5, np.minimum(abs(x), abs(y)), np.maximum(abs(x), abs(y))
    inside = x**2 + y**2 < radius**2 if kind == 0 else (near < 2) & (far < radius)
    picture[inside] = generator.integers(180, 255, 3)
    return picture


def write_shapes(folder: Path, count: int = 16, side: int = 32, seed: int = 0) -> Path:
    """``count`` pictures in two folders named after their classes."""
    generator = np.random.default_rng(seed)
    for number in range(count):
        path = folder / NAMES[number % 2] / f'{number}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(shape(number % 2, generator, side)).save(path)
    return folder


def config_of(folder: Path, work_dir: Path, hooks: list[dict] | None = None, epochs: int = 3, **more: object) -> Config:
    """A training config: a ResNet of a few channels with BatchNorm and dropout, random flips, momentum, a schedule."""
    loading = [{'type': 'LoadImageFromFile'}, {'type': 'Resize', 'scale': (32, 32)}]
    flips = [{'type': 'RandomFlip', 'prob': 0.5, 'direction': 'horizontal'}]
    dataset = {'type': 'CustomDataset', 'data_root': str(folder), 'classes': list(NAMES), 'serialize_data': False}
    loader = {'batch_size': 4, 'num_workers': 0}
    return Config(
        {
            'default_scope': 'mmpretrain',
            'model': {
                'type': 'ImageClassifier',
                'backbone': {'type': 'ResNet', 'depth': 18, 'base_channels': 4, 'stem_channels': 4},
                'neck': {'type': 'GlobalAveragePooling'},
                'head': {'type': 'LinearClsHead', 'num_classes': 2, 'in_channels': 32},
                'data_preprocessor': {'mean': [60.0] * 3, 'std': [60.0] * 3, 'to_rgb': True, 'num_classes': 2},
                'train_cfg': {'augments': [{'type': 'Mixup', 'alpha': 0.8}]},
            },
            'train_dataloader': {
                **loader,
                'sampler': {'type': 'DefaultSampler', 'shuffle': True},
                'dataset': {**dataset, 'pipeline': [*loading, *flips, {'type': 'PackInputs'}]},
            },
            'val_dataloader': {
                **loader,
                'sampler': {'type': 'DefaultSampler', 'shuffle': False},
                'dataset': {**dataset, 'pipeline': [*loading, {'type': 'PackInputs'}]},
            },
            'val_cfg': {},
            'val_evaluator': {'type': 'Accuracy'},
            'train_cfg': {'by_epoch': True, 'max_epochs': epochs},
            'optim_wrapper': {'optimizer': {'type': 'SGD', 'lr': 0.05, 'momentum': 0.9}},
            'param_scheduler': {'type': 'CosineAnnealingLR', 'T_max': epochs, 'convert_to_iter_based': True},
            'default_hooks': {'checkpoint': None, 'logger': {'type': 'LoggerHook', 'interval': 2}},
            'custom_hooks': hooks or [],
            'randomness': {'seed': 3, 'deterministic': False},
            'work_dir': str(work_dir),
            'log_level': 'WARNING',
            'experiment_name': f'shapes {work_dir.name}',
            'vis_backends': [{'type': 'LocalVisBackend'}],
            'visualizer': {
                'type': 'UniversalVisualizer',
                'vis_backends': [{'type': 'LocalVisBackend'}],
                'name': f'shapes {work_dir}',
            },
            **more,
        }
    )


class QuietRunner(Runner):
    """A runner that neither looks for compilers nor formats its config, which takes longer than the training."""

    def _log_env(self, env_cfg: dict) -> None:
        pass

    def dump_config(self) -> None:
        pass


def train(config: Config, *hooks: Hook) -> QuietRunner:
    """Runs a training to its end, with more hooks that are built already."""
    runner = QuietRunner.from_cfg(config)
    for hook in hooks:
        runner.register_hook(hook)
    runner.train()
    return runner
