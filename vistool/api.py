"""Pictures from Python: a result as a figure, as files, or as plain arrays."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from vistool.results import Heatmaps, Result
from vistool.visualization import render, visualizer
from vistool.visualization.scene import Pixels
from vistool.visualization.style import Style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def show(result: Result, **style: Any) -> Figure:
    """The picture of a result as a matplotlib figure; a notebook shows it.

    Args:
        result: What an analysis returned.
        style: Fields of :class:`~vistool.visualization.style.Style`, such as ``width='column'``.
    """
    return render.figure(result, Style(**style))


def save(result: Result, path: str | Path, *, save_raw: bool = False, **style: Any) -> list[Path]:
    """Writes a result to a file (png, jpg, webp, pdf, svg).

    Args:
        result: What an analysis returned.
        path: Where to.
        save_raw: Whether the numbers are written beside it.
        style: Fields of :class:`~vistool.visualization.style.Style`.

    Returns:
        The files written.

    Raises:
        InputError: If it cannot be written, or a style is not accepted.
    """
    return visualizer.save(result, path, Style(**style), save_raw)


def overlay(result: Heatmaps, **style: Any) -> list[Pixels]:
    """Each map over the network's image: uint8 ``(H, W, 3)`` RGB at the network's size.

    Args:
        result: Heat maps.
        style: Fields of :class:`~vistool.visualization.style.Style`, such as ``alpha=0.4``.
    """
    return render.overlay(result, Style(**style))
