"""Makes demo/dataset, a tiny labelled data set in ImageNet's class ids, and masks of its objects, from the photographs.

Each class is one photograph, cropped in several ways and partly mirrored, so that sizes and shapes differ as they do in
real data. Run ``python demo/make_dataset.py`` from anywhere; the result is the same each time.
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw, ImageOps

HERE = Path(__file__).parent

CLASSES = {'tabby': (281, 'chelsea.png'), 'missile': (657, 'rocket.jpg'), 'espresso': (967, 'coffee.png')}
"""Folder → its id in ImageNet-1k and the photograph it is cut from."""

CROPS = {
    'train': [((0.0, 0.0, 0.9, 0.95), False), ((0.1, 0.0, 0.85, 1.0), True), ((0.05, 0.05, 0.8, 0.9), False)],
    'val': [((0.0, 0.0, 1.0, 1.0), False), ((0.15, 0.0, 0.75, 0.95), True)],
}
"""Split → (left, top, right, bottom) as shares of the photograph, and whether it is mirrored."""

OUTLINES = {
    'coffee.png': (
        '173,112 183,63 225,28 288,17 351,28 396,63 407,112 403,155 379,211 351,246 316,267 274,277 260,288 '
        '232,305 204,302 194,281 204,246 197,218 180,176'
    ),
    'chelsea.png': (
        '32,11 39,42 29,84 39,155 25,211 4,253 0,299 369,299 372,288 327,267 339,197 360,140 364,84 355,70 '
        '369,42 400,0 35,0'
    ),
    'astronaut.png': (
        '153,70 171,31 213,17 270,28 298,63 291,105 277,119 263,148 256,169 298,211 302,253 340,274 358,316 '
        '361,344 466,351 506,421 511,510 20,510 45,407 31,379 38,323 59,281 122,225 129,169 185,148 183,119 '
        '160,105'
    ),
    'rocket.jpg': '310,140 321,126 332,140 337,407 307,407',
}
"""Corners x,y of what each photograph shows, drawn by hand: the cup, the cat, the astronaut, the rocket."""

LONG_SIDE = 224


def cut(photo: Image.Image, box: tuple[float, float, float, float], mirrored: bool) -> Image.Image:
    """The part of ``photo`` in ``box``, its long side reduced to ``LONG_SIDE`` pixels."""
    width, height = photo.size
    left, top, right, bottom = box
    part = photo.crop((round(left * width), round(top * height), round(right * width), round(bottom * height)))
    part.thumbnail((LONG_SIDE, LONG_SIDE), Image.Resampling.LANCZOS)
    return ImageOps.mirror(part) if mirrored else part


def mask(file: str) -> Image.Image:
    """Where the object of a photograph is, 255 inside."""
    drawn = Image.new('L', Image.open(HERE / file).size)
    corners = [tuple(map(int, corner.split(','))) for corner in OUTLINES[file].split()]
    ImageDraw.Draw(drawn).polygon(corners, fill=255)
    return drawn


def main(home: Path = HERE) -> None:
    """Writes ``dataset``, with a list of ``path class-id`` lines for each split, and ``masks``."""
    folder, masks = home / 'dataset', home / 'masks'
    masks.mkdir(exist_ok=True)
    for file in OUTLINES:
        mask(file).convert('1').save(masks / f'{Path(file).stem}.png')
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
                inside = (masks / relative).with_suffix('.png')
                inside.parent.mkdir(parents=True, exist_ok=True)
                cut(mask(file), box, mirrored).point(lambda value: 255 * (value >= 128)).convert('1').save(inside)
        (folder / f'{split}.txt').write_text(''.join(lines), encoding='utf-8')


if __name__ == '__main__':
    main()
