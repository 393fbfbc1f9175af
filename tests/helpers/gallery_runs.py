"""Finished runs written by hand, as the manifest's description has them."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

NAMES = {281: 'tabby', 285: 'Egyptian cat', 657: 'missile', 967: 'espresso', 968: 'cup', 969: 'measuring cup'}
COLORS = {'photo': (60, 120, 60), 'GradCAM': (40, 40, 200), 'LayerCAM': (200, 60, 40)}


def picture(path: Path, color: tuple[int, int, int], size: tuple[int, int] = (60, 80)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # OpenCV's own writer does not take every name.
    done, data = cv2.imencode('.jpg', np.full((*size, 3), color, np.uint8))
    assert done
    path.write_bytes(data.tobytes())


def known(class_id: int, score: float | None = None, names: dict[int, str] = NAMES) -> dict:
    return {'id': class_id, 'name': names[class_id], **({} if score is None else {'score': score})}


def line(
    index: int,
    name: str,
    prediction: dict | None = None,
    label: dict | None = None,
    methods: tuple[str, ...] = ('GradCAM',),
    layers: tuple[str, ...] = ('backbone.norm',),
    home: str | None = None,
    **more: object,
) -> dict:
    """One line of a manifest; ``home`` is the folder of its tiles where that is not named like the image."""
    home = f'gallery/tiles/{home or name}'
    tiles = [{'kind': 'photo', 'name': 'photo', 'width': 80, 'height': 60, 'file': f'{home}/0.jpg'}]
    row = f'{prediction["name"]} {prediction["score"]:.2f}' if prediction else ''
    for method in methods:
        for layer in layers:
            column = method if len(layers) == 1 else f'{method} · {layer}'
            shape = {'row': row, 'column': column, 'layer': layer, 'method': method, 'width': 80, 'height': 60}
            file = f'{home}/{len(tiles)}.jpg'
            tiles.append({'kind': 'map', 'name': f'{method}/{layer}', **shape, 'file': file})
    return {
        'index': index,
        'name': name,
        'input': f'photos/{name}.jpg',
        'bytes': 100,
        'mtime': 1.0,
        'label': label,
        'prediction': prediction,
        'targets': [prediction] if prediction else [],
        'methods': list(methods),
        'layers': list(layers),
        'files': [{'name': f'{name}.png', 'bytes': 1, 'crc32': '0'}],
        'tiles': tiles,
        'seconds': 0.05,
        'error': None,
        **more,
    }


def failed(index: int, name: str, error: str) -> dict:
    return {**line(index, name), 'tiles': [], 'files': [], 'targets': [], 'seconds': None, 'error': error}


def write_run(folder: Path, lines: list[dict], pictures: bool = True, **facts: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    run = {
        'command': 'vis_cam photos config.py --gallery',
        'tool': 'vis_cam',
        'config': 'small-net',
        'checkpoint': 'small.pth',
        'sha256': '0' * 64,
        'settings': {'method': ['GradCAM']},
        'fingerprint': 'f',
        'versions': {'vistool': '0.1.0', 'torch': '2.6.0'},
        **facts,
    }
    (folder / 'run.json').write_text(json.dumps(run))
    (folder / 'manifest.jsonl').write_text(''.join(json.dumps(each) + '\n' for each in lines))
    for each in lines if pictures else ():
        for tile in each['tiles'] or ():
            if not (folder / tile['file']).exists():
                picture(folder / tile['file'], COLORS.get(tile.get('method', 'photo'), (128, 128, 128)))
        for file in each['files']:
            picture(folder / file['name'], (250, 250, 250))
    return folder


def small_lines() -> list[dict]:
    """Seven images: three right, two wrong, one without a label, one that could not be read."""
    both = {'methods': ('GradCAM', 'LayerCAM')}
    return [
        line(0, 'a_tabby', known(281, 0.9), known(281), **both),
        line(1, 'b_tabby', known(285, 0.6), known(281), **both),
        line(2, 'c_cup', known(968, 0.3), known(968), **both),
        line(3, 'd_cup', known(969, 0.8), known(968), **both),
        line(4, 'e_espresso', known(967, 0.99), known(967)),
        line(5, 'f_unknown', known(657, 0.1), layers=('backbone.norm', 'backbone.stage3')),
        failed(6, 'g_broken', 'image file is truncated'),
    ]
