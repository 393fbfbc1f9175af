"""Generated scenes: colored shapes on noise, with a box and a mask for each.

Only the shape tells the class; colors, sizes and places are random.

    python -m demo.scenes.scenes

writes six images, ``scenes.json`` (COCO's format) and a mask for each image beside this file.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

CLASSES = ('background', 'circle', 'square', 'triangle')
SIZE = (128, 160)
"""Height and width."""
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Scene:
    """An image and what is in it.

    Attributes:
        image: uint8 ``(H, W, 3)`` RGB.
        boxes: float32 ``(n, 4)``: left, top, right, bottom.
        labels: int64 ``(n,)``.
        mask: int64 ``(H, W)``, the class of every pixel.
    """

    image: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    mask: NDArray[np.int64]


def scene(rng: np.random.Generator, most: int = 4) -> Scene:
    """One scene with one to ``most`` shapes that do not overlap."""
    height, width = SIZE
    coarse = rng.integers(60, 196, (height // 8, width // 8, 3)).astype(np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), np.int16)
    image = Image.fromarray(np.clip(smooth + rng.integers(-25, 26, smooth.shape), 0, 255).astype(np.uint8))
    mask = Image.new('L', (width, height))
    boxes: list[tuple[int, int, int, int]] = []
    labels: list[int] = []
    for _ in range(int(rng.integers(1, most + 1))):
        side = int(rng.integers(18, 52))
        left, top = int(rng.integers(2, width - side - 2)), int(rng.integers(2, height - side - 2))
        box = (left, top, left + side, top + side)
        if any(box[0] < b[2] + 3 and b[0] < box[2] + 3 and box[1] < b[3] + 3 and b[1] < box[3] + 3 for b in boxes):
            continue
        label = int(rng.integers(1, len(CLASSES)))
        color = rng.integers(0, 2, 3) * 215 + rng.integers(0, 40, 3)
        for canvas, fill in ((image, tuple(map(int, color))), (mask, label)):
            _draw(ImageDraw.Draw(canvas), label, box, fill)
        boxes.append(box)
        labels.append(label)
    return Scene(np.array(image), np.array(boxes, np.float32), np.array(labels), np.array(mask).astype(np.int64))


def _draw(canvas: ImageDraw.ImageDraw, label: int, box: tuple[int, int, int, int], fill: int | tuple[int, ...]) -> None:
    left, top, right, bottom = box
    if label == 1:
        canvas.ellipse((left, top, right - 1, bottom - 1), fill)
    elif label == 2:
        canvas.rectangle((left, top, right - 1, bottom - 1), fill)
    else:
        canvas.polygon(((left + right) / 2, top, right - 1, bottom - 1, left, bottom - 1), fill)


def main(folder: Path = HERE, count: int = 6, seed: int = 100) -> None:
    """Writes ``count`` scenes."""
    rng = np.random.default_rng(seed)
    images, annotations = [], []
    for number in range(count):
        found = scene(rng)
        name = f'scene_{number}.jpg'
        Image.fromarray(found.image).save(folder / name, quality=88)
        Image.fromarray(found.mask.astype(np.uint8)).save(folder / f'scene_{number}_mask.png')
        images.append({'id': number, 'file_name': name, 'height': SIZE[0], 'width': SIZE[1]})
        for box, label in zip(found.boxes.tolist(), found.labels.tolist(), strict=True):
            left, top, right, bottom = box
            entry = {'bbox': [left, top, right - left, bottom - top], 'area': (right - left) * (bottom - top)}
            entry |= {'id': len(annotations) + 1, 'image_id': number, 'category_id': label, 'iscrowd': 0}
            annotations.append(entry)
    categories = [{'id': index, 'name': name} for index, name in enumerate(CLASSES) if index]
    record = {'images': images, 'annotations': annotations, 'categories': categories}
    (folder / 'scenes.json').write_text(json.dumps(record, indent=1) + '\n', encoding='utf-8')


if __name__ == '__main__':
    main()
