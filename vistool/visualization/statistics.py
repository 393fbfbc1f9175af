"""Statistics of attention heads as heat maps of layers × heads, and as a table."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vistool.visualization.style import Style
from vistool.visualization.vector import parameters

_TITLES = {
    'entropy': 'entropy (nats)',
    'distance': 'mean distance (px)',
    'cls': 'on the class token',
    'prefix': 'on other prefix tokens',
    'padding': 'on padding',
}


def statistics_picture(rows: Sequence[Mapping[str, Any]], style: Style, suffix: str) -> bytes:
    """One panel per measure that is not 0 everywhere, layers down, heads across.

    Args:
        rows: One per layer and head: ``layer``, ``head`` and the measures.
        style: Width and resolution.
        suffix: Of the picture file.
    """
    import seaborn
    from matplotlib.figure import Figure

    from vistool.visualization.files import VECTOR_SUFFIXES, encode_pixels
    from vistool.visualization.vector import encode, rasterize

    page = style.page(vector=suffix in VECTOR_SUFFIXES)
    layers = sorted({row['layer'] for row in rows})
    heads = range(1 + max(row['head'] for row in rows))
    tables = {name: np.full((len(layers), len(heads)), np.nan) for name in _TITLES}
    for row in rows:
        for name in _TITLES:
            tables[name][layers.index(row['layer']), row['head']] = row[name]
    shown = [name for name, table in tables.items() if np.nan_to_num(table).any()]
    width = (page.width or 330.0 * len(shown)) * page.points / 72
    with parameters({'font.size': page.font * page.points}):
        figure = Figure(
            figsize=(width, max(1.2, width / len(shown) * min(1.6, 0.35 + len(layers) / max(len(heads), 6)))),
            dpi=page.density * 72 / page.points,
            layout='constrained',
        )
        for name, axes in zip(shown, figure.subplots(1, len(shown), squeeze=False)[0], strict=True):
            seaborn.heatmap(
                tables[name], ax=axes, cmap=style.colormap or 'viridis', xticklabels=list(heads), yticklabels=layers,
                vmin=0, square=False, cbar_kws={'fraction': 0.06},
            )  # fmt: skip
            axes.set_title(_TITLES[name], fontsize=page.font * page.points)
            axes.set_xlabel('head')
            axes.set_ylabel('layer' if name == shown[0] else '')
            axes.tick_params(length=0, labelsize=page.small_font * page.points, rotation=0)
        figure.canvas.draw()
    return encode([figure], suffix) if suffix in VECTOR_SUFFIXES else encode_pixels(rasterize(figure), suffix)


def statistics_table(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """The rows as a ``.csv`` file."""
    table = io.StringIO()
    writer = csv.DictWriter(table, list(rows[0]), lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
    return table.getvalue().encode()
