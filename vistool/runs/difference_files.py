"""What a comparison of two runs writes: a table, a summary, a report for CI systems, a sheet of the worst."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from vistool.environment import __version__, shareable
from vistool.errors import counted
from vistool.results import GridImage, Heatmap, Heatmaps, ImageGrid
from vistool.runs.differences import ImageDifference, MapPair, RunDifference, common_size, same_part
from vistool.runs.verdicts import Verdict
from vistool.visualization import overlay
from vistool.visualization.facets import score_text
from vistool.visualization.files import encoded, write_file
from vistool.visualization.raster import Map, blend, colorize, normalize, resize_map
from vistool.visualization.scene import Pixels
from vistool.visualization.style import Style, lookup_table
from vistool.visualization.visualizer import Visualizer

TABLE, SUMMARY, WORST = 'diff.csv', 'summary.md', 'worst'
"""The files of a comparison in its folder."""

_LISTED = 20
_UNSEEN = 190
"""The gray of what a network did not see; the red-blue of differences has no gray."""

_CONTROL = re.compile('[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]')
"""Characters that XML cannot hold."""


def write_difference(
    found: RunDifference, verdicts: Sequence[Verdict], out: Path, style: Style, top: int, junit: Path | None = None
) -> list[Path]:
    """Writes the table, the summary, the sheet of the worst and, if it is asked for, the JUnit report.

    Args:
        found: What changed.
        verdicts: What became of the rules.
        out: The folder.
        style: How the sheet is drawn.
        top: Images on the sheet at most; 0 draws none.
        junit: The report's file.

    Returns:
        The files.

    Raises:
        InputError: A file cannot be written.
    """
    files = [
        (out / TABLE, _table(found), 'out'),
        (out / SUMMARY, summary(found, verdicts).encode(errors='replace'), 'out'),
    ]
    if junit is not None:
        files.append((junit, junit_xml(found, verdicts), 'junit'))
    for path, data, parameter in files:
        write_file(path, data, parameter)
    grid = worst(found, top)
    (out / f'{WORST}.png').unlink(missing_ok=True)  # of an earlier comparison
    drawn = Visualizer(out, style).write(grid, WORST) if grid.rows else []
    return [*(path for path, _, _ in files), *drawn]


def _table(found: RunDifference) -> bytes:
    text: str = found.to_frame().to_csv(index=False, lineterminator='\n', float_format='%.9g')
    return encoded(text)


def summary(found: RunDifference, verdicts: Sequence[Verdict]) -> str:
    """The comparison in Markdown: counts, rules, and the images that changed the most."""
    failed = any(verdict.failed for verdict in verdicts)
    lines = [f'# {_text(found.names[0])} → {_text(found.names[1])}: {"changed" if failed else "no change that counts"}']
    lines += ['', *(f'- {_text(line)}' for line in counts(found)), '']
    lines += ['| Fails if | Found | |', '|---|---|---|']
    lines += [f'| `{each.rule}` | {_found(each)} | {"✗" if each.failed else "✓"} |' for each in verdicts]
    changed = [image for image in found.images if image.flipped or image.mass or image.score > 0][:_LISTED]
    if changed:
        lines += ['', '| Image | Prediction | Score moved | Mass moved | Lowest IoU | Lowest rank correlation |']
        lines += ['|---|---|---|---|---|---|', *map(_row, changed)]
    return '\n'.join(lines) + '\n'


def counts(found: RunDifference) -> list[str]:
    """What was compared, as lines of text."""
    maps = list(found.maps)
    paired = sum(item.paired for item in maps)
    flips = sum(image.flipped for image in found.images)
    both = counted(len(found.images), 'image')
    lines = [f'{both} in both runs, {flips} with another prediction, {counted(paired, "map")} compared']
    for names, run in zip((found.only_before, found.only_after), found.names, strict=True):
        if names:
            lines.append(f'{len(names)} only in {run}: {", ".join(names[:3])}{" …" if len(names) > 3 else ""}')
    alone = len(maps) - paired
    if alone:
        lines.append(f'{counted(alone, "map")} without a counterpart: another target, method or layer is explained')
    apart = sum(item.paired and not math.isfinite(item.mass) for item in maps)
    if apart:
        lines.append(f'{counted(apart, "map")} not laid over each other: the networks saw other parts of the photo')
    cropped = sum(
        any(item.paired and not same_part(*item.views) and _common_size(item) is not None for item in image.maps)
        for image in found.images
    )
    if cropped:
        lines.append(f'{counted(cropped, "image")} cropped differently: compared where both networks saw the photo')
    failed = sum(any(image.errors) for image in found.images)
    if failed:
        lines.append(f'{counted(failed, "image")} failed in one of the runs')
    return lines


def _found(verdict: Verdict) -> str:
    value = f'{verdict.value:.2%}' if verdict.rule.share else f'{verdict.value:.4g}'
    return f'{value} ({counted(len(verdict.images), "image")})' if verdict.images else value


def describe(verdict: Verdict) -> str:
    """A verdict as a line of text."""
    return f'{verdict.rule} {"holds" if verdict.failed else "does not hold"}: {_found(verdict)}'


def _row(image: ImageDifference) -> str:
    lowest = [_lowest(image, name) for name in ('iou', 'rank')]
    numbers = [
        f'{image.score:.4f}' if math.isfinite(image.score) else '–',
        *(f'{value:.3f}' if value is not None else '–' for value in (_moved(image), *lowest)),
    ]
    return f'| {_text(image.name)} | {_text(_predictions(image))} | {" | ".join(numbers)} |'


def _moved(image: ImageDifference) -> float | None:
    return image.mass if any(math.isfinite(item.mass) for item in image.maps) else None


def _lowest(image: ImageDifference, name: str) -> float | None:
    values = [value for item in image.maps if math.isfinite(value := getattr(item, name))]
    return min(values, default=None)


def _text(text: str) -> str:
    """Text inside a cell of a Markdown table."""
    return ' '.join(str(shareable(text)).split()).replace('|', '\\|')


def _predictions(image: ImageDifference) -> str:
    before, after = (
        score_text(str(each.get('name')), each.get('score')) if each else '–' for each in (image.before, image.after)
    )
    return before if before == after else f'{before} → {after}'


def junit_xml(found: RunDifference, verdicts: Sequence[Verdict]) -> bytes:
    """The comparison as JUnit XML: a test case per image, and one per rule over all of them."""
    suite = ElementTree.Element('testsuite', name=_xml(f'vis_diff {found.names[0]} {found.names[1]}'))
    for verdict in verdicts:
        case = ElementTree.SubElement(suite, 'testcase', classname='vis_diff', name=_xml(str(verdict.rule)))
        if verdict.failed:
            ElementTree.SubElement(case, 'failure', message=_xml(f'{verdict.rule}: {_found(verdict)}'))
    for image in found.images:
        case = ElementTree.SubElement(suite, 'testcase', classname='vis_diff.images', name=_xml(image.name))
        broken = [str(verdict.rule) for verdict in verdicts if verdict.failed and image.name in verdict.images]
        if broken:
            failure = ElementTree.SubElement(case, 'failure', message=_xml(', '.join(broken)))
            failure.text = _xml(_details(image))
    cases = list(suite)
    suite.set('tests', str(len(cases)))
    suite.set('failures', str(sum(case.find('failure') is not None for case in cases)))
    properties = ElementTree.Element('properties')
    ElementTree.SubElement(properties, 'property', name='vistool', value=__version__)
    suite.insert(0, properties)
    data: bytes = ElementTree.tostring(suite, encoding='utf-8', xml_declaration=True)
    return data


def _xml(text: str) -> str:
    return _CONTROL.sub('�', str(shareable(text)))


def _details(image: ImageDifference) -> str:
    lines = [_predictions(image)]
    lines += [
        f'{item.name}: iou {item.iou:.4f}, rank {item.rank:.4f}, mass {item.mass:.4f}'
        for item in image.maps
        if item.paired
    ]
    return '\n'.join(lines)


def worst(found: RunDifference, top: int) -> ImageGrid:
    """The images that changed the most: the photo, the map of each run, and their difference on one scale."""
    changed = (image for image in found.images if image.flipped or image.mass or image.score > 0)
    chosen = [(image, pair) for image in changed if (pair := _shown(image)) is not None][:top]
    layers = {image.name: _layers(*pair) for image, pair in chosen}
    found_changes = {image.name: _change(pair, *layers[image.name]) for image, pair in chosen}
    changes = {name: change for name, change in found_changes.items() if change is not None}
    bound = max((float(np.nanmax(np.abs(each))) for each in changes.values()), default=0.0) or 1.0
    titles = ('photo', *found.names, f'{found.names[1]} − {found.names[0]} (±{bound:.2g})')
    rows = [_drawn(image, pair, layers[image.name], changes.get(image.name), bound) for image, pair in chosen]
    titled = [[replace(cell, title=(title,)) for cell, title in zip(row, titles, strict=True)] for row in rows[:1]]
    return ImageGrid(rows=tuple(map(tuple, [*titled, *rows[1:]])), mode='difference')


def _shown(image: ImageDifference) -> tuple[MapPair, MapPair] | None:
    """The map that changed the most, once for each run; the runs' own maps where they explain other classes."""
    if not image.maps:
        return None
    pairs = [item for item in image.maps if item.paired]
    before = next((item for item in image.maps if item.before is not None), image.maps[0])
    after = next((item for item in image.maps if item.after is not None), image.maps[0])
    if not pairs or image.flipped:
        return before, after
    most = max(pairs, key=lambda item: np.nan_to_num(item.mass, nan=-1.0))
    return most, most


@dataclass(frozen=True)
class _Layer:
    """One run's map, and the photo that it is drawn over.

    Attributes:
        photo: uint8 ``(H, W, 3)``.
        values: float32 ``(h, w[, C])`` over the whole photo; None where the run has no such map.
        covered: bool ``(H, W)``, what the run's network saw of the photo; None: all of it.
    """

    photo: Pixels
    values: Map | None
    covered: NDArray[np.bool_] | None = None


def _common_size(item: MapPair) -> tuple[int, int] | None:
    return common_size(item.views[0].geometry, item.views[1].geometry)


def _layers(before: MapPair, after: MapPair) -> tuple[_Layer, _Layer]:
    """The map of each run, both over one photo where the places of both on it are known, else each over its own."""
    views = before.views[0], after.views[1]
    maps = before.before, after.after
    if same_part(*views):
        photo = views[1 if maps[1] is not None else 0].image
        return _Layer(photo, maps[0]), _Layer(photo, maps[1])
    size = common_size(views[0].geometry, views[1].geometry)
    if size is None:
        return _Layer(views[0].image, maps[0]), _Layer(views[1].image, maps[1])
    photo, seen = np.full((*size, 3), _UNSEEN, np.uint8), []
    for view in views:
        assert view.geometry is not None
        pixels, covered = view.geometry.warp(view.image, size)
        photo[covered] = np.rint(pixels[covered]).astype(np.uint8)
        seen.append(covered)
    laid = [
        None if values is None or view.geometry is None else view.geometry.warp(values, size)[0]
        for values, view in zip(maps, views, strict=True)
    ]
    return _Layer(photo, laid[0], seen[0]), _Layer(photo, laid[1], seen[1])


def _change(pair: tuple[MapPair, MapPair], before: _Layer, after: _Layer) -> Map | None:
    """The difference of the maps, NaN where one network did not see the photo; None where they cannot be compared."""
    one, other = before.values, after.values
    if pair[0] is not pair[1] or before.photo is not after.photo or one is None or other is None:
        return None
    if one.ndim != other.ndim:
        return None
    change = resize_map(other, (one.shape[0], one.shape[1])) - one
    change = change if change.ndim == 2 else change.mean(axis=2)
    if before.covered is not None and after.covered is not None:
        change[~(before.covered & after.covered)] = np.nan
    return change if np.isfinite(change).any() else None


def _drawn(
    image: ImageDifference,
    pair: tuple[MapPair, MapPair],
    layers: tuple[_Layer, _Layer],
    change: Map | None,
    bound: float,
) -> tuple[GridImage, ...]:
    photo = layers[1].photo
    names = dict.fromkeys(item.name for item in pair)
    cells = [GridImage(photo, footer=(image.name, *names))]
    for layer, prediction in zip(layers, (image.before, image.after), strict=True):
        told = score_text(str(prediction.get('name')), prediction.get('score')) if prediction else ''
        pixels = np.full_like(layer.photo, 255) if layer.values is None else _over(layer)
        footer = (told,) if layer.values is not None else (told, 'no such map')
        cells.append(GridImage(pixels, footer=footer, wrong=image.flipped))
    if change is None:
        paired = pair[0] is pair[1] and pair[0].paired
        said = 'not the same part of the photo' if paired and not same_part(*pair[0].views) else 'not the same map'
        cells.append(GridImage(np.full_like(photo, 255), footer=(said,)))
    else:
        item = pair[0]
        values = normalize(resize_map(change, photo.shape[:2], 'bilinear'), -bound, bound, signed=True)
        colors = colorize(np.nan_to_num(values), lookup_table('RdBu_r'))
        numbers = [f'IoU {item.iou:.2f} · rank {item.rank:.2f}', f'mass moved {_percent(item.mass)}']
        if layers[0].covered is not None:
            colors[np.isnan(values)] = _UNSEEN
            numbers.append('the crops differ; gray: not in both')
        cells.append(GridImage(colors, footer=tuple(numbers)))
    return tuple(cells)


def _percent(share: float) -> str:
    return f'{share:.0%}' if share >= 0.095 else f'{100 * share:.2g} %'.replace(' ', '')


def _over(layer: _Layer) -> Pixels:
    """A map over its photo, on the scale of its own values; the photo is faded where the network did not see it."""
    values, covered = layer.values, layer.covered
    assert values is not None
    if values.ndim == 2:
        shown = values if covered is None or not covered.any() else values[covered]
        values = normalize(values, min(0.0, float(np.nanmin(shown))), float(np.nanmax(shown)))
    drawn: Pixels = overlay(Heatmaps('cam', layer.photo, (Heatmap(values),)))[0]
    if covered is None:
        return drawn
    faded = blend(layer.photo, np.full_like(layer.photo, _UNSEEN), 0.75)
    return np.where(covered[..., None], drawn, faded)
