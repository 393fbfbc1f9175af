"""What the page knows: runs and images as plain, compact JSON values."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from vistool.environment import anonymized
from vistool.gallery.points import PointTable
from vistool.gallery.runs import FinishedRun, matched, run_names

Line = Mapping[str, Any]
_RATIOS = (0.5, 4.0)  # of a card's picture, so that cards stay readable


def page_data(runs: Sequence[FinishedRun], homes: Sequence[str], table: PointTable | None = None) -> dict[str, Any]:
    """Everything that the page shows.

    Args:
        runs: The runs that stand beside it, then the gallery's own.
        homes: For each, where its tiles lie, as a prefix of their paths in place of the leading ``gallery/``.
        table: Where images lie on an embedding map; None: where the gallery's own run says.

    Raises:
        InputError: Two runs have no image in common.
    """
    known = _Known()
    rows = matched(runs)
    images = [
        {
            **_constant(row, known),
            **_placed(row, table),
            **_objects(row[-1], known),
            'runs': [line and _seen(line, home, known) for line, home in zip(row, homes, strict=True)],
        }
        for row in rows
    ]
    facts = [
        anonymized({'name': name, **_facts(run, rows, number)})
        for number, (run, name) in enumerate(zip(runs, run_names(runs), strict=True))
    ]
    own = runs[-1].facts
    maps = [{'name': name, 'note': ''} for name in table.names] if table else own.get('embeddings')
    more = {'metrics': list(known.metrics.values()), 'embeddings': maps, 'again': anonymized(own.get('again'))}
    return {
        'runs': facts,
        'maps': [list(key) for key in known.maps],
        'classes': [list(each) for each in known.classes],
        'ratio': _ratio(runs),
        **{name: value for name, value in more.items() if value},
        'images': images,
    }


class _Known:
    """What the images of a page have in common, written once.

    Attributes:
        classes: Id and name of a class → its number.
        maps: Method, layer and column of a map → its number.
        metrics: Name of a metric → what the page says of it: its name, its short name, where it is better.
    """

    def __init__(self) -> None:
        self.classes: dict[tuple[int | None, str], int] = {}
        self.maps: dict[tuple[str, str, str], int] = {}
        self.metrics: dict[str, list[str]] = {}

    def class_number(self, entry: Line) -> int:
        """The number of a class, as a label, a prediction or an object has it."""
        return self.classes.setdefault((entry.get('id'), _name(entry)), len(self.classes))

    def numbers(self, tile: Line) -> list[list[Any]]:
        """The metrics of a tile as pairs of the metric's number and its value."""
        found = []
        for each in tile.get('metrics') or ():
            name = str(each['name'])
            better = 'lower' if each.get('better') == 'lower' else 'higher'
            self.metrics.setdefault(name, [name, str(each.get('short') or name), better])
            found.append([list(self.metrics).index(name), finite(each.get('value'))])
        return found


def as_script(data: Mapping[str, Any]) -> str:
    """The data as a script that needs nothing but ASCII and cannot end the page's own."""
    head = _dumped({name: value for name, value in data.items() if name != 'images'})
    # A line per image: the file can be looked at, and compared with another.
    images = ',\n'.join(_dumped(image) for image in data['images'])
    return f'window.VISTOOL_GALLERY={head[:-1]},"images":[\n{images}\n]}};\n'


def _dumped(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=True, separators=(',', ':'), allow_nan=False)
    for character in '<>&':
        text = text.replace(character, f'\\u{ord(character):04x}')
    return text


def _constant(row: Sequence[Line | None], known: _Known) -> dict[str, Any]:
    """What an image is, whichever run has seen it."""
    lines = [line for line in reversed(row) if line is not None]
    label = _label(row)
    return {
        'index': lines[0].get('index'),
        'name': lines[0]['name'],
        'input': anonymized(next((line['input'] for line in lines if line.get('input')), None)),
        'label': label and known.class_number(label),
    }


def _label(row: Sequence[Line | None]) -> Line | None:
    return next((line['label'] for line in reversed(row) if line is not None and line.get('label')), None)


def _placed(row: Sequence[Line | None], table: PointTable | None) -> dict[str, Any]:
    """Where an image lies on each embedding map."""
    line = next(line for line in reversed(row) if line is not None)
    points = table.of(line) if table else (row[-1] or {}).get('points')
    return {'points': [[float(f'{value:.5g}') for value in point] for point in points]} if points else {}


def _kind(entry: Line) -> str:
    """What the annotations say of an object, as the page writes it."""
    return _KINDS.get(str(entry.get('kind')), '')


_KINDS = {'true positive': 'tp', 'false positive': 'fp', 'miss': 'miss'}


def _objects(line: Line | None, known: _Known) -> dict[str, Any]:
    """The objects of an image: what the annotations say of each, its class, score and IoU."""
    found = [
        [_kind(each), known.class_number(each), finite(each.get('score')), finite(each.get('iou'))]
        for each in (line or {}).get('instances') or ()
    ]
    return {'objects': found} if found else {}


def _seen(line: Line, home: str, known: _Known) -> dict[str, Any]:
    """What one run has to say of an image."""
    prediction = line.get('prediction')
    tiles = [tile for tile in line.get('tiles') or () if 'file' in tile]
    photo = next((tile for tile in tiles if tile.get('kind') == 'photo'), None)
    sized = photo if photo and {'width', 'height'} <= photo.keys() else None
    found = {
        'prediction': prediction and [known.class_number(prediction), finite(prediction.get('score'))],
        'targets': [[_name(each), finite(each.get('score'))] for each in line.get('targets') or ()],
        'photo': photo and tile_url(photo['file'], home),
        'size': sized and [sized['width'], sized['height']],
        'maps': [_map(tile, home, known) for tile in tiles if tile.get('kind') == 'map'],
        'files': [] if home else _figures(line),
        'seconds': finite(line.get('seconds')),
        'uncertainty': finite(line.get('uncertainty')),
        'error': anonymized(line.get('error')),
    }
    return {name: value for name, value in found.items() if value not in (None, [])}


def _figures(line: Line) -> list[list[str]]:
    """Names and addresses of what was written for an image, its tiles aside."""
    names = [each['name'] for each in line.get('files') or () if 'within' not in each]
    return [[name, '../' + _quoted(name)] for name in names if not name.startswith('gallery/')]


def _map(tile: Line, home: str, known: _Known) -> list[Any]:
    """Which map it is, its row, its file, a remark, the photo under it where that is another one, and its metrics."""
    key = (str(tile.get('method') or ''), str(tile.get('layer') or ''), str(tile.get('column') or ''))
    remark = ' · '.join(str(tile[name]) for name in ('footer', 'note') if tile.get(name))
    photo = tile_url(tile['photo'], home) if tile.get('photo') else None
    number = known.maps.setdefault(key, len(known.maps))
    file, numbers = tile_url(tile['file'], home), known.numbers(tile)
    entry: list[Any] = [number, str(tile.get('row') or ''), file, remark, photo, numbers]
    while entry[-1] in ('', None, []):
        entry.pop()
    return entry


def tile_url(file: str, home: str) -> str:
    """The address of a tile, seen from the page in ``gallery/``."""
    inside = file.removeprefix('gallery/')
    return _quoted(f'{home}{inside}' if home or inside != file else f'../{file}')


def _quoted(path: str) -> str:
    # A name that is not UTF-8 keeps its bytes.
    return quote(path, errors='surrogateescape')


def _facts(run: FinishedRun, rows: Sequence[Sequence[Line | None]], place: int) -> dict[str, Any]:
    facts, labels = run.facts, [(row[place], _label(row)) for row in rows]
    seen = [line for line, _ in labels if line is not None]
    judged = [
        label['id'] == line['prediction']['id']
        for line, label in labels
        if line and label and label.get('id') is not None and (line.get('prediction') or {}).get('id') is not None
    ]
    scores = [score for line in seen if (score := finite((line.get('prediction') or {}).get('score'))) is not None]
    told = {
        'tool': str(facts.get('tool') or ''),
        'config': str(facts.get('config') or ''),
        'checkpoint': str(facts.get('checkpoint') or ''),
        'about': _about(facts),
        'images': len(seen),
        'errors': sum(bool(line.get('error')) for line in seen),
        'judged': len(judged),
        'right': sum(judged),
        'mean_score': round(statistics.fmean(scores), 4) if scores else None,
    }
    return told if any(line.get('tiles') for line in seen) else {**told, 'pictures': False}


def _about(facts: Mapping[str, Any]) -> list[list[str]]:
    """The facts of a run as lines of text."""
    settings = {f'setting: {key}': value for key, value in sorted((facts.get('settings') or {}).items())}
    versions = ', '.join(f'{key} {value}' for key, value in sorted((facts.get('versions') or {}).items()))
    told = {name: facts.get(name) for name in ('command', 'config', 'checkpoint', 'sha256')}
    entries = {**told, **settings, 'versions': versions}
    return [[key, _text(value)] for key, value in entries.items() if value not in (None, '', [], {})]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)


def _name(entry: Line) -> str:
    name = entry.get('name')
    return str(entry.get('id')) if name in (None, '') else str(name)


def finite(value: Any) -> float | None:
    """A finite number with as many digits as the page shows or sorts by, else None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return round(float(value), 5)


def _ratio(runs: Sequence[FinishedRun]) -> float:
    """Width by height of the cards' pictures: as most photos have it."""
    ratios = [
        tile['width'] / tile['height']
        for run in runs
        for line in run.images
        for tile in (line.get('tiles') or ())[:1]
        if tile.get('width') and tile.get('height')
    ]
    return round(min(max(statistics.median(ratios), _RATIOS[0]), _RATIOS[1]), 3) if ratios else 1.333
