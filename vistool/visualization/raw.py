"""The numbers behind a picture: ``.npz`` for maps and grids, ``.csv`` for curves. The same result is the same bytes."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vistool.results import Curves, Heatmap, Heatmaps, ImageGrid, Result
from vistool.visualization.facets import facets

# zlib's fastest level: float maps hardly get smaller with more.
_COMPRESSION = 1
_EPOCH_OF_ZIP = (1980, 1, 1, 0, 0, 0)


def heatmaps_npz(result: Heatmaps) -> bytes:
    """Heat maps as an ``.npz`` that loads with ``allow_pickle=False``.

    ``groups`` (G,) strings; for each group i ``maps_i`` float32 ``(K, h, w)``, ``names_i`` (K,) strings and, where maps
    were scaled, ``range_i`` float32 ``(K, 2)`` (NaN for those that were not); ``image`` uint8 ``(H, W, 3)``;
    ``recipe``, the provenance as a JSON string.
    """
    return _npz({**_heatmap_arrays(result), 'recipe': _provenance(result)})


def grid_npz(result: ImageGrid) -> bytes:
    """Pictures in rows as an ``.npz``: ``image_ROW_COLUMN`` uint8 ``(h, w, 3)`` and ``recipe``."""
    return _npz({**_grid_arrays(result), 'recipe': _provenance(result)})


def _provenance(result: Result) -> NDArray[Any]:
    return np.array(json.dumps(result.provenance, ensure_ascii=False, sort_keys=True, default=_plain))


def _heatmap_arrays(result: Heatmaps) -> dict[str, NDArray[Any]]:
    groups: dict[str, list[tuple[str, Heatmap]]] = {}
    for facet, item in zip(facets(result).tiles, result.maps, strict=True):
        groups.setdefault(facet.group, []).append((facet.name, item))
    arrays: dict[str, NDArray[Any]] = {'groups': np.array(list(groups), dtype=np.str_)}
    for index, maps in enumerate(groups.values()):
        arrays[f'maps_{index}'] = np.stack([np.asarray(item.values, np.float32) for _, item in maps])
        arrays[f'names_{index}'] = np.array([name for name, _ in maps], dtype=np.str_)
        if any(item.range is not None for _, item in maps):
            nothing = (np.nan, np.nan)
            arrays[f'range_{index}'] = np.array([item.range or nothing for _, item in maps], np.float32)
    arrays['image'] = np.asarray(result.image, np.uint8)
    return arrays


def _grid_arrays(result: ImageGrid) -> dict[str, NDArray[Any]]:
    return {
        f'image_{row}_{column}': np.asarray(image.pixels, np.uint8)
        for row, images in enumerate(result.rows)
        for column, image in enumerate(images)
    }


def _npz(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w', zipfile.ZIP_DEFLATED, compresslevel=_COMPRESSION) as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f'{name}.npy', _EPOCH_OF_ZIP)
            entry.compress_type = zipfile.ZIP_DEFLATED
            member = io.BytesIO()
            np.lib.format.write_array(member, np.asarray(array, order='C'), allow_pickle=False)
            archive.writestr(entry, member.getbuffer(), compresslevel=_COMPRESSION)
    return buffer.getvalue()


def _plain(value: Any) -> Any:
    """JSON for the few kinds of value in a provenance besides plain ones."""
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    return str(value)


def table(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Rows as a ``.csv`` file; there must be one."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def curves_csv(result: Curves) -> bytes:
    """Curves as a table of step, epoch, config, group, parameter and value."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator='\n')
    writer.writerow(('step', 'epoch', 'config', 'group', 'parameter', 'value'))
    for curve in result.curves:
        length = result.epoch_length.get(curve.config)
        epochs: list[Any] = [''] * len(curve.steps) if not length else (curve.steps // length).astype(int).tolist()
        constant = (curve.config, curve.group, curve.parameter)
        for step, epoch, value in zip(curve.steps.tolist(), epochs, curve.values.tolist(), strict=True):
            writer.writerow((step, epoch, *constant, repr(value)))
    return table.getvalue().encode()
