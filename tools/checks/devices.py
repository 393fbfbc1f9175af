"""Compares the numbers that every command writes on a GPU with those that it writes on the CPU.

    python tools/checks/devices.py [--device cuda] [--only TEXT …]

Each line runs one command twice in this process, with ``--save-raw``, and compares every array of its files. Networks
have real weights where the extra ``demo`` brings them, else random ones, the same on both devices. Exit code 1 if
something differs by more than the rounding of float32 explains.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import shlex
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

TOLERANCE, TOLERANCE_OF_CHECKS = 1e-4, 5e-3
"""Of the largest value of an array: maps are differences of sums, in which the rounding of 50 layers adds up.

Maps behind which ReLUs follow are left out: rounding puts single units on the other side of a kink, which changes a map
of EfficientNet-Lite0's fourth stage by 1 % on the CPU too, between float32 and float64. vis_check gives ranks."""
LITE = 'configs/efficientnet_lite/efficientnet-lite0_in1k.py demo://efficientnet-lite0'
ONE_PASS = '--method GradCAM GradCAM++ XGradCAM LayerCAM HiResCAM GradCAMElementWise EigenGradCAM ShapleyCAM'
RUNS = (
    f'vis_cam demo/coffee.png {LITE} {ONE_PASS}',
    'vis_cam demo/astronaut.png timm::test_resnet none --method AblationCAM ScoreCAM FullGrad EigenCAM',
    'vis_cam demo/coffee.png timm::convnext_atto none --target-layers model.stages.1 model.stages.3 '
    '--layer-fusion none',
    f'vis_cam demo/coffee.png {LITE} --reference demo/astronaut.png',
    f'vis_cam demo/coffee.png {LITE} --aug-smooth --eigen-smooth --target-category top2',
    f'vis_cam demo/coffee.png {LITE} --method GradCAM random --metrics insertion deletion road --steps 8',
    'vis_cam demo/coffee.png timm::test_resnet none --method GradCAM random sobel center --metrics insertion deletion '
    'road drop increase sparseness sensitivity',
    f'vis_cam demo {LITE} --batch-size 2',
    f'vis_cam demo/photos.txt {LITE} --batch-size 3 --compare {LITE}',
    f'vis_cam demo/coffee.png timm::resnet50 none {ONE_PASS}',
    'vis_cam demo/coffee.png timm::convnext_atto none',
    'vis_cam demo/coffee.png timm::vit_tiny_patch16_224 none --method GradCAM LayerCAM',
    'vis_cam demo/coffee.png timm::swin_tiny_patch4_window7_224 none',
    'vis_cam demo/coffee.png torchvision::mobilenet_v3_small none --method GradCAM LayerCAM',
    'vis_cam demo/coffee.png torchvision::fcn_resnet50 none --point 300,200',
    'vis_cam demo/scenes/scene_3.jpg configs/scenes/detector.py --instances 0 2 --attribute class box',
    'vis_cam demo/scenes/scene_3.jpg hf::demo/scenes/rt_detr --instances top2',
    'vis_cam demo/scenes/scene_3.jpg configs/scenes/segmenter.py --point 120,90',
    'vis_cam demo/coffee.png mmpretrain::vision_transformer/vit-base-p16_64xb64_in1k.py none',
    'vis_attention demo/astronaut.png timm::vit_tiny_patch16_224 none --target-layers all --query cls mean 250,110',
    'vis_attention demo/astronaut.png timm::vit_tiny_patch16_224 none --method rollout',
    'vis_attention demo/astronaut.png timm::vit_tiny_patch16_224 none --method legrad --target-category top2',
    'vis_attention demo/astronaut.png timm::vit_tiny_patch16_224 none --method grad-rollout',
    'vis_attention demo/astronaut.png timm::vit_tiny_patch16_224 none --img-size 448 --stats',
    'vis_attention demo/astronaut.png timm::swin_tiny_patch4_window7_224 none --query 250,110 --target-layers -1',
    'vis_attention demo/astronaut.png mmpretrain::vision_transformer/vit-base-p16_64xb64_in1k.py none',
    'vis_attention demo/astronaut.png torchvision::vit_b_16 none --method rollout',
    f'vis_featmap demo/coffee.png {LITE}',
    f'vis_featmap demo/coffee.png {LITE} --channel-reduction pca',
    'vis_featmap demo/coffee.png timm::vit_tiny_patch16_224 none --similar-to 300,200',
    'vis_featmap demo/coffee.png timm::ghostnetv3_100 none',
    'vis_patches demo/coffee.png timm::vit_tiny_patch16_224',
    f'vis_check demo/photos.txt {LITE} --method GradCAM LayerCAM --checks randomization classes direction',
    f'vis_tsne {LITE} --img demo --reducer pca',
)


def main(argv: Sequence[str] | None = None) -> int:
    """Compares the runs; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--device', default='cuda')
    parser.add_argument('--only', nargs='+', default=[''], metavar='TEXT', help='text in the command')
    args = parser.parse_args(argv)
    warnings.filterwarnings('ignore')
    wrong = 0
    for words in RUNS:
        if not any(part in words for part in args.only):
            continue
        start = time.perf_counter()
        try:
            with tempfile.TemporaryDirectory() as name:
                folders = [Path(name) / device for device in ('cpu', 'other')]
                for device, folder in zip(('cpu', args.device), folders, strict=True):
                    call(words, device, folder)
                count, most, where = differences(*folders)
            allowed = TOLERANCE_OF_CHECKS if words.startswith('vis_check') else TOLERANCE
            told, bad = f'{count} arrays, at most {most:.1e} apart ({where})', not most <= allowed
        except Exception as error:  # one run that fails is a line, not the end
            told, bad = f'{type(error).__name__}: {error}', True
        wrong += bad
        print(f'{"WRONG" if bad else "equal"}  {words}: {told}  {time.perf_counter() - start:.1f} s', flush=True)
    if torch.cuda.is_available():
        print(f'{torch.cuda.get_device_name()}, torch {torch.__version__}, wrong: {wrong}')
    return 1 if wrong else 0


def call(words: str, device: str, out: Path) -> None:
    """Runs a command in this process.

    Raises:
        RuntimeError: Its exit code is neither 0 nor, for a check that fails, 1.
    """
    command, *rest = shlex.split(words)
    run = importlib.import_module(f'vistool.commands.{command}').main
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = run([*rest, '--save-raw', '--device', device, '-o', f'{out}/'])
    if code and not (code == 1 and command == 'vis_check'):
        raise RuntimeError(f'exit code {code} on {device}: {said.getvalue()}')


def differences(own: Path, other: Path) -> tuple[int, float, str]:
    """How many arrays two folders hold, the largest difference relative to an array's largest value, and its place.

    Raises:
        RuntimeError: The folders hold other files or arrays.
    """
    found = [sorted(each.relative_to(folder) for each in folder.rglob('*.npz')) for folder in (own, other)]
    if found[0] != found[1] or not found[0]:
        raise RuntimeError(f'the files differ: {found[0]}, {found[1]}')
    count, most, where = 0, 0.0, ''
    for path in found[0]:
        ours, theirs = (dict(np.load(folder / path)) for folder in (own, other))
        if ours.keys() != theirs.keys():
            raise RuntimeError(f'the arrays of {path} differ: {sorted(ours)}, {sorted(theirs)}')
        for key, values in ours.items():
            if values.dtype.kind != 'f' or not values.size:
                continue
            count += 1
            apart = np.abs(values - theirs[key]).max() / max(np.abs(values).max(), 1e-30)
            apart = np.inf if np.isnan(apart) else apart
            if apart > most:
                most, where = float(apart), f'{path}, {key}'
    return count, most, where


if __name__ == '__main__':
    sys.exit(main())
