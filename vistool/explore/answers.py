"""Answers to a page: float maps as bytes, with a header that says what they are and where they lie."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vistool.data.geometry import Geometry
from vistool.results import Heatmap, Heatmaps
from vistool.visualization.style import Style
from vistool.visualization.views import map_colors

Matrix = NDArray[np.float64]


def encode_maps(maps: Sequence[NDArray[np.float32]], header: Mapping[str, Any]) -> bytes:
    """Maps and their header: its length (uint32), JSON padded to whole words, then float32, all little-endian."""
    text = json.dumps(header, ensure_ascii=False, separators=(',', ':'), allow_nan=False).encode()
    text += b' ' * (-len(text) % 4)
    return b''.join(
        [struct.pack('<I', len(text)), text, *(np.ascontiguousarray(each, '<f4').tobytes() for each in maps)]
    )


def decode_maps(data: bytes) -> tuple[dict[str, Any], list[NDArray[np.float32]]]:
    """The header and the maps of :func:`encode_maps`."""
    (length,) = struct.unpack_from('<I', data)
    header = json.loads(data[4 : 4 + length])
    values = np.frombuffer(data, '<f4', offset=4 + length)
    maps = []
    for entry in header['maps']:
        shape = (entry['height'], entry['width'], *([3] if entry['channels'] == 3 else []))
        maps.append(values[entry['offset'] : entry['offset'] + int(np.prod(shape))].reshape(shape))
    return header, maps


def map_entries(result: Heatmaps, on_original: bool) -> list[dict[str, Any]]:
    """What a header says of each map of a result.

    Args:
        result: Of one model.
        on_original: Whether the page shows the original, not what the network saw.
    """
    entries, offset = [], 0
    bars = [colors.bar for colors in map_colors(result, Style(colorbar=True))]
    for item, bar in zip(result.maps, bars, strict=True):
        height, width = item.values.shape[:2]
        image = result.image if item.view is None else item.view.image
        geometry = result.geometry if item.view is None else item.view.geometry
        matrix = cell_matrix((height, width), (image.shape[0], image.shape[1]), geometry if on_original else None)
        entries.append(
            {
                'name': _name(item),
                'height': height,
                'width': width,
                'channels': 3 if item.values.ndim == 3 else 1,
                'offset': offset,
                'range': None if item.range is None else [finite_or_none(each) for each in item.range],
                'limits': None if bar is None else [finite_or_none(bar.low), finite_or_none(bar.high)],
                'diverging': bar is not None and bar.low < 0,
                'matrix': affine(matrix),
                'coordinates': {key: value for key, value in item.coordinates.items() if key != 'model'},
                'score': finite_or_none(item.score),
                'channel': item.coordinates.get('channel'),
            }
        )
        offset += item.values.size
    return entries


def cell_matrix(grid: tuple[int, int], size: tuple[int, int], geometry: Geometry | None) -> Matrix:
    """``(3, 3)``: from ``(column, row)`` in units of cells to pixels of the picture.

    Args:
        grid: Rows and columns of cells over the network's input.
        size: ``(H, W)`` of that input.
        geometry: From there to the picture; None where the picture is the network's input.
    """
    cells = np.diag([size[1] / grid[1], size[0] / grid[0], 1.0])
    return cells if geometry is None else geometry.matrix @ cells


def affine(matrix: Matrix) -> list[float]:
    """A matrix as the six numbers ``a, b, c, d, e, f`` that a canvas takes."""
    return [float(matrix[row, column]) for column in range(3) for row in range(2)]


def token_at(matrix: Matrix, grid: tuple[int, int], point: tuple[float, float]) -> dict[str, Any]:
    """The cell of a grid under the middle of a pixel of the picture, with its corners there."""
    x, y, _ = np.linalg.inv(matrix) @ [point[0] + 0.5, point[1] + 0.5, 1.0]
    row, column = int(np.floor(y)), int(np.floor(x))
    inside = 0 <= row < grid[0] and 0 <= column < grid[1]
    row, column = min(max(row, 0), grid[0] - 1), min(max(column, 0), grid[1] - 1)
    corners = [(column, row), (column + 1, row), (column + 1, row + 1), (column, row + 1)]
    box = [(matrix @ [*corner, 1.0])[:2].tolist() for corner in corners]
    return {'number': row * grid[1] + column, 'row': row, 'column': column, 'box': box, 'inside': inside}


def _name(item: Heatmap) -> str:
    """What a page calls a map among those of its answer."""
    place = item.coordinates
    for key, word in (('channel', 'channel'), ('head', 'head')):
        if key in place:
            value = place[key]
            return str(value) if isinstance(value, str) else f'{word} {value}'
    return ' · '.join(str(place[key]) for key in ('method', 'reduction', 'target', 'query') if key in place)


def finite_or_none(value: float | None) -> float | None:
    """A number as JSON has it: None for NaN and infinity."""
    return None if value is None or not np.isfinite(value) else float(value)
