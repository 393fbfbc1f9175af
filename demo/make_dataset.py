"""Makes demo/dataset, a tiny labelled data set in ImageNet's class ids, from the photographs in this folder.

Each class is one photograph, cropped in several ways and partly mirrored, so that sizes and shapes differ as they do in
real data. Run ``python demo/make_dataset.py`` from anywhere; the result is the same each time.
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageOps

HERE = Path(__file__).parent

CLASSES = {'tabby': (281, 'chelsea.png'), 'missile': (657, 'rocket.jpg'), 'espresso': (967, 'coffee.png')}
"""Folder → its id in ImageNet-1k and the photograph it is cut from."""

CROPS = {
    'train': [((0.0, 0.0, 0.9, 0.95), False), ((0.1, 0.0, 0.85, 1.0), True), ((0.05, 0.05, 0.8, 0.9), False)],
    'val': [((0.0, 0.0, 1.0, 1.0), False), ((0.15, 0.0, 0.75, 0.95), True)],
}
"""Split → (left, top, right, bottom) as shares of the photograph, and whether it is mirrored."""

LONG_SIDE = 224


def cut(photo: Image.Image, box: tuple[float, float, float, float], mirrored: bool) -> Image.Image:
    """The part of ``photo`` in ``box``, its long side reduced to ``LONG_SIDE`` pixels."""
    width, height = photo.size
    left, top, right, bottom = box
    part = photo.crop((round(left * width), round(top * height), round(right * width), round(bottom * height)))
    part.thumbnail((LONG_SIDE, LONG_SIDE), Image.Resampling.LANCZOS)
    return ImageOps.mirror(part) if mirrored else part


def main(folder: Path = HERE / 'dataset') -> None:
    """Writes the pictures into ``folder`` and, for each split, a list of ``path class-id`` lines."""
    for split, crops in CROPS.items():
        lines = []
        for name, (label, file) in CLASSES.items():
            photo = Image.open(HERE / file).convert('RGB')
            for index, (box, mirrored) in enumerate(crops):
                relative = f'{name}/{split}_{index}.jpg'
                target = folder / relative
                target.parent.mkdir(parents=True, exist_ok=True)
                cut(photo, box, mirrored).save(target, quality=85)
                lines.append(f'{relative} {label}\n')
        (folder / f'{split}.txt').write_text(''.join(lines), encoding='utf-8')


if __name__ == '__main__':
    main()
