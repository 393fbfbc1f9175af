"""The gallery's small pictures: an image's photo and maps, aligned, so that one can be flipped for the other."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vistool.gallery.runs import own_path
from vistool.results import Heatmap, Heatmaps
from vistool.visualization import raster
from vistool.visualization.facets import Facet, facets
from vistool.visualization.files import encode_pixels, safe_name, write_file
from vistool.visualization.heatmaps import panel_scenes
from vistool.visualization.raster import resize_image
from vistool.visualization.scene import Pixels
from vistool.visualization.style import Style
from vistool.visualization.views import choose_view

TILES = 'gallery/tiles'
"""Where tiles lie in the folder of a run."""
LONGEST_EDGE = 384
_QUALITY = 85


def write_tiles(result: Heatmaps, folder: Path, style: Style, name: str) -> list[dict[str, Any]]:
    """Write the photo and every map of one image for the gallery. May be called from several threads.

    All tiles of an image have one pixel size, with a longest edge of at most 384. Photos and overlays are JPEG; maps
    that are drawn without the photo are PNG, because flat cells with sharp borders stay sharp and small.

    Args:
        result: The maps of one image.
        folder: Output folder of the run.
        style: How maps are drawn; widths, titles and bars do not matter.
        name: Name of the image's figure, without suffix; ``/`` makes sub-folders.

    Returns:
        One entry per file for the run's manifest, the photo first: ``kind`` (photo or map), ``name``, ``file`` (POSIX
        path from ``folder``), ``width`` and ``height`` in pixels; for maps ``row``, ``column``, ``method``, ``layer``,
        and where there is one ``note``, ``footer``, ``metrics``, ``instance`` (the place of what it explains in the
        image's ``instances``) and ``photo``, the file of the photo that another network saw.

    Raises:
        InputError: A map cannot be drawn, or the folder cannot be written in.
    """
    style = replace(style, panel_size=None, row_titles=(), column_titles=())
    scenes = panel_scenes(result, style)
    longest = max(scenes[0][1].width, scenes[0][1].height)
    density = min(1.0, LONGEST_EDGE / longest)
    writer = _Writer(folder, f'{TILES}/{safe_name(name)}')
    photo = raster.paint(scenes[0][1], density)
    entries = [writer.put({'kind': 'photo', 'name': 'photo'}, photo, '.jpg')]
    own: list[tuple[Pixels, str]] = []
    for item, facet, (_, scene) in zip(result.maps, facets(result).tiles, scenes[1:], strict=True):
        known = {**_measured(result, item), **_instance(result, item)}
        entry = {**_described(facet), **known, **_photo_of(result, style, item, own, writer, entries)}
        photo_below = result.kind == 'cam' or style.alpha is not None or style.layout == 'overlay'
        bare = not photo_below and 'share' not in item.coordinates
        entries.append(writer.put(entry, raster.paint(scene, density), '.png' if bare else '.jpg'))
    return entries


def write_photo(image: Pixels, folder: Path, name: str) -> dict[str, Any]:
    """Write the photo alone of an image that has no maps. May be called from several threads.

    Args:
        image: uint8 ``(H, W, 3)``; written with a longest edge of at most 384.
        folder: Output folder of the run.
        name: Name of the image; ``/`` makes sub-folders.

    Returns:
        Its entry for the run's manifest, as in :func:`write_tiles`.
    """
    scale = min(1.0, LONGEST_EDGE / max(image.shape[:2]))
    size = max(1, round(image.shape[0] * scale)), max(1, round(image.shape[1] * scale))
    writer = _Writer(folder, f'{TILES}/{safe_name(name)}')
    return writer.put({'kind': 'photo', 'name': 'photo'}, resize_image(image, size) if scale < 1 else image, '.jpg')


class _Writer:
    """Numbers the tiles of one image."""

    def __init__(self, folder: Path, home: str) -> None:
        self.folder, self.home = folder, home
        self.count = 0
        self.size = (0, 0)

    def put(self, entry: dict[str, Any], pixels: Pixels, suffix: str) -> dict[str, Any]:
        self.size = pixels.shape[0], pixels.shape[1]
        file = f'{self.home}/{self.count}{suffix}'
        self.count += 1
        write_file(own_path(self.folder, file), encode_pixels(pixels, suffix, _QUALITY), 'gallery')
        return {**entry, 'width': self.size[1], 'height': self.size[0], 'file': file}


def _photo_of(
    result: Heatmaps,
    style: Style,
    item: Heatmap,
    own: list[tuple[Pixels, str]],
    writer: _Writer,
    entries: list[dict[str, Any]],
) -> dict[str, str]:
    """The photo beneath a map of another network, which may have cropped otherwise; written once for all its maps."""
    if item.view is None:
        return {}
    seen = choose_view(result, style, item.view).photo
    if np.array_equal(seen, choose_view(result, style).photo):
        return {}
    for pixels, file in own:
        if np.array_equal(pixels, seen):
            return {'photo': file}
    entry = writer.put({'kind': 'photo', 'name': 'photo of another network'}, resize_image(seen, writer.size), '.jpg')
    entries.append(entry)
    own.append((seen, entry['file']))
    return {'photo': entry['file']}


def _measured(result: Heatmaps, item: Heatmap) -> dict[str, Any]:
    """The metrics of a map, each with what the page says of it; null where one is not defined."""
    measures = {name: measure for name, measure in result.measures.items() if name in item.metrics}
    numbers = [
        {
            'name': name,
            'short': measure.short,
            'better': measure.better,
            'value': item.metrics[name] if math.isfinite(item.metrics[name]) else None,
        }
        for name, measure in measures.items()
    ]
    return {'metrics': numbers} if numbers else {}


def _instance(result: Heatmaps, item: Heatmap) -> dict[str, Any]:
    """The place among the image's objects of the one that a map explains, if it explains one."""
    found = [each.number for each in result.instances if each.box is not None]
    number = item.coordinates.get('instance')
    return {'instance': found.index(number)} if isinstance(number, int) and number in found else {}


def _described(facet: Facet) -> dict[str, Any]:
    entry = {
        'kind': 'map',
        'name': facet.name,
        'row': facet.row,
        'column': facet.column,
        'layer': facet.group,
        'method': facet.method,
    }
    remarks = {'note': facet.note, 'footer': facet.footer}
    return {**entry, **{name: text for name, text in remarks.items() if text}}
