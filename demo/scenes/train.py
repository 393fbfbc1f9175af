"""Trains two detectors and the segmenter on generated scenes and writes their weights, reproducibly.

    python -m demo.scenes.train

writes ``detector.pth``, ``segmenter.pth`` and the folder ``rt_detr`` beside this file in some eight minutes of CPU.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from transformers import RTDetrForObjectDetection

from demo.scenes.networks import SceneDetector, SceneSegmenter, scene_rt_detr
from demo.scenes.scenes import CLASSES, Scene, scene

HERE = Path(__file__).parent
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def image_of(one: Scene) -> Tensor:
    """The image ``(3, H, W)`` in [0, 1]."""
    return torch.from_numpy(one.image).permute(2, 0, 1).float() / 255


def normalized(images: Tensor) -> Tensor:
    """Images ``(B, 3, H, W)`` in [0, 1] as the segmenter takes them."""
    mean, std = (images.new_tensor(each)[:, None, None] for each in (MEAN, STD))
    return (images - mean) / std


def train_detector(steps: int = 400, batch: int = 8, seed: int = 0) -> SceneDetector:
    """A fitted detector, in eval mode."""
    rng = np.random.default_rng(seed)
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        model = SceneDetector(len(CLASSES)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    for step in range(steps):
        scenes = [scene(rng) for _ in range(batch)]
        targets = [{'boxes': torch.from_numpy(each.boxes), 'labels': torch.from_numpy(each.labels)} for each in scenes]
        losses = model([image_of(each) for each in scenes], targets)
        loss = sum(losses.values())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 2.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0:
            print(f'step {step}: loss {float(loss):.3f}', file=sys.stderr)
    return model.eval()


def train_segmenter(steps: int = 1000, batch: int = 8, seed: int = 0) -> SceneSegmenter:
    """A fitted segmenter, in eval mode."""
    rng = np.random.default_rng(seed)
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        model = SceneSegmenter(len(CLASSES)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    for _ in range(steps):
        scenes = [scene(rng) for _ in range(batch)]
        logits = model(normalized(torch.stack([image_of(each) for each in scenes])))['out']
        truth = torch.stack([torch.from_numpy(each.mask) for each in scenes])
        loss = nn.functional.cross_entropy(logits, truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def train_rt_detr(steps: int = 1000, batch: int = 8, seed: int = 0) -> RTDetrForObjectDetection:
    """A fitted RT-DETR of transformers, whose decoder has deformable attention, in eval mode."""
    rng = np.random.default_rng(seed)
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        model = scene_rt_detr(CLASSES[1:]).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps, pct_start=0.1)
    for _ in range(steps):
        scenes = [scene(rng) for _ in range(batch)]
        images = torch.stack([image_of(each) for each in scenes])
        loss = model(pixel_values=images, labels=[described(each) for each in scenes]).loss
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        schedule.step()
    return model.eval()


def described(one: Scene) -> dict[str, Tensor]:
    """The objects as transformers' detectors take them: center, width and height as fractions, classes from 0."""
    height, width = one.mask.shape
    boxes = torch.from_numpy(one.boxes) / torch.tensor([width, height, width, height])
    low, high = boxes.split(2, 1)
    return {'class_labels': torch.from_numpy(one.labels) - 1, 'boxes': torch.cat([(low + high) / 2, high - low], 1)}


def main() -> None:
    """Trains all, tells how well two of them do on new scenes, and writes the files."""
    detector, segmenter = train_detector(), train_segmenter()
    rng = np.random.default_rng(1)
    found = right = total = 0
    for _ in range(40):
        one = scene(rng)
        with torch.no_grad():
            predicted = detector([image_of(one)])[0]
            labels = segmenter(normalized(image_of(one)[None]))['out'][0].argmax(0).numpy()
        found += int((predicted['scores'] > 0.5).sum()) == len(one.boxes)
        right += int((labels == one.mask).sum())
        total += one.mask.size
    print(f'scenes with the right number of objects: {found} of 40; pixels right: {right / total:.3f}')
    meta = {'dataset_meta': {'classes': CLASSES}}
    for name, model in (('detector', detector), ('segmenter', segmenter)):
        torch.save({'state_dict': model.state_dict(), 'meta': meta}, HERE / f'{name}.pth')
    train_rt_detr().save_pretrained(HERE / 'rt_detr')


if __name__ == '__main__':
    main()
