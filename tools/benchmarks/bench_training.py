"""What vistool.ExplainHook adds to an epoch: EfficientNet-Lite0 on the demo dataset, 8 probes.

The hook's own time is set against that of the epochs of the same training. A whole epoch with the hook and one without
differ by less than two epochs of one kind do.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from timing import machine

from vistool.training import ExplainHook

PHOTOS = Path(__file__).resolve().parents[2] / 'demo/dataset'


class Clock(Hook):
    """Notes CPU and wall time at the beginning of every epoch and in the training step's last iteration."""

    priority = 'HIGHEST'

    def __init__(self) -> None:
        self.began = (0.0, 0.0)
        self.epochs: list[tuple[float, float]] = []

    def before_train_epoch(self, runner: Runner) -> None:
        """Starts an epoch."""
        self.began = now()

    def after_train_epoch(self, runner: Runner) -> None:
        """Ends it, before any other hook acts."""
        self.epochs.append(since(self.began))


class Timed(ExplainHook):
    """The hook, with the time that it takes at the end of each epoch."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.seconds: list[tuple[float, float]] = []

    def after_train_epoch(self, runner: Runner) -> None:
        """Draws, and notes how long that took."""
        began = now()
        super().after_train_epoch(runner)
        self.seconds.append(since(began))


def now() -> tuple[float, float]:
    """CPU and wall time."""
    return time.process_time(), time.perf_counter()


def since(began: tuple[float, float]) -> tuple[float, float]:
    """CPU and wall seconds since then."""
    ended = now()
    return ended[0] - began[0], ended[1] - began[1]


def config_of(images: int, epochs: int, work_dir: str) -> Config:
    """A training of so many images an epoch."""
    loading = [{'type': 'LoadImageFromFile'}, {'type': 'Resize', 'scale': (224, 224)}, {'type': 'PackInputs'}]
    photos = {'type': 'CustomDataset', 'data_root': str(PHOTOS), 'pipeline': loading}
    count = sum(1 for path in PHOTOS.rglob('*') if path.is_file())
    repeated = {'type': 'mmengine.RepeatDataset', 'dataset': photos, 'times': max(1, round(images / count))}
    return Config(
        {
            'default_scope': 'mmpretrain',
            'model': {
                'type': 'TimmClassifier',
                'model_name': 'tf_efficientnet_lite0',
                'num_classes': 3,
                'loss': {'type': 'CrossEntropyLoss'},
                'data_preprocessor': {'mean': [127.0] * 3, 'std': [128.0] * 3, 'to_rgb': True},
            },
            'train_dataloader': {
                'batch_size': 8,
                'num_workers': 0,
                'sampler': {'type': 'DefaultSampler', 'shuffle': True},
                'dataset': repeated,
            },
            'test_pipeline': loading,
            'train_cfg': {'by_epoch': True, 'max_epochs': epochs},
            'optim_wrapper': {'optimizer': {'type': 'SGD', 'lr': 0.01, 'momentum': 0.9}},
            'default_hooks': {'checkpoint': None},
            'work_dir': work_dir,
            'log_level': 'ERROR',
        }
    )


def main() -> None:
    """Prints one Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--images', type=int, default=600, help='images an epoch')
    parser.add_argument('--epochs', type=int, default=5)
    parser.add_argument('--probes', type=int, default=8)
    args = parser.parse_args()
    clock, hook = Clock(), Timed(images=str(PHOTOS), max_images=args.probes)
    with tempfile.TemporaryDirectory() as folder:
        runner = Runner.from_cfg(config_of(args.images, args.epochs, folder))
        runner.register_hook(clock)
        runner.register_hook(hook)
        runner.train()
    print(f'{args.images} images an epoch, {args.probes} probes; {machine()}, median of {args.epochs} epochs\n')
    print('| | epoch, s | hook, s | hook / epoch |\n| --- | ---: | ---: | ---: |')
    for place, name in enumerate(('CPU', 'wall')):
        epochs, hooks = ([each[place] for each in found] for found in (clock.epochs, hook.seconds))
        share = statistics.median(b / a for a, b in zip(epochs, hooks, strict=True))
        print(f'| {name} | {statistics.median(epochs):.1f} | {statistics.median(hooks):.2f} | {share:.2%} |')


if __name__ == '__main__':
    main()
