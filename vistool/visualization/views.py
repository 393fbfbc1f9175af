"""Where a heat map is drawn: on the whole original, or on what the network saw."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vistool.data.geometry import Geometry
from vistool.results import Heatmaps, NetworkView
from vistool.visualization.cells import Outline
from vistool.visualization.draw import Map, resize_map, to_uint8
from vistool.visualization.scene import Pixels
from vistool.visualization.style import Align, Interpolation, Style


@dataclass(frozen=True)
class View:
    """A photo, and how maps and points come onto it.

    Attributes:
        photo: uint8 ``(H, W, 3)``: the original, or the network's image.
        geometry: Network pixels to original pixels, where ``photo`` is the original; else None.
    """

    photo: Pixels
    geometry: Geometry | None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the photo."""
        return self.photo.shape[0], self.photo.shape[1]

    def map_at(
        self, values: Map, size: tuple[int, int], interpolation: Interpolation, align: Align
    ) -> tuple[Map, NDArray[np.bool_] | None]:
        """A map of the network's input at ``size`` of the whole view, and where it is (None: everywhere)."""
        if self.geometry is None:
            return resize_map(values, size, interpolation, align), None
        if interpolation == 'bicubic' or align == 'corner':
            # Warping knows only centers and straight lines, so the enlargement happens on the network's grid.
            values = resize_map(values, self.geometry.network_size, interpolation, align)
        warped, covered = self.geometry.warp(values, size, 'nearest' if interpolation == 'nearest' else 'bilinear')
        return warped, covered

    def place(self, points: NDArray[np.float64]) -> tuple[tuple[float, float], ...]:
        """Points ``(n, 2)`` in fractions of the network input, as fractions of the view."""
        if self.geometry is not None:
            rows, columns = self.geometry.network_size
            height, width = self.size
            points = self.geometry.to_original(points * (columns, rows)) / (width, height)
        return tuple((float(x), float(y)) for x, y in points)

    def point(self, point: tuple[float, float], geometry: Geometry | None) -> tuple[float, float]:
        """A point in pixels of the original, as fractions of the view's width and height.

        Args:
            point: ``(x, y)``; without a ``geometry`` in network pixels.
            geometry: The way from what the network saw to the original.
        """
        place = np.array([point], np.float64)
        if self.geometry is None and geometry is not None:
            place = geometry.to_network(place)
        height, width = self.size
        return float(place[0, 0]) / width, float(place[0, 1]) / height

    def outline(self) -> Outline | None:
        """The border of the network's crop, or None where the crop shows everything."""
        if self.geometry is None:
            return None
        height, width = self.size
        corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float64)
        seen = self.geometry.to_network(corners)
        rows, columns = self.geometry.network_size
        # Resizing rounds sizes to whole pixels, so an uncropped photo may stick out by one.
        inside = (seen >= -1.5) & (seen <= np.array([columns, rows]) + 1.5)
        if bool(inside.all()):
            return None
        points = self.geometry.crop() / np.array([width, height], np.float64)
        near_edge = np.abs(points - np.rint(points)) < 0.01
        points = np.where(near_edge, np.clip(points, 0.002, 0.998), points)
        return Outline(tuple((float(x), float(y)) for x, y in points))


def choose_view(result: Heatmaps, style: Style, seen: NetworkView | None = None) -> View:
    """The view that the style asks for, or the kind's own: the original for CAM, the network's for the rest.

    Attention and features show tokens and units, which only the network's view shows as they are.

    Args:
        result: The maps.
        style: How to draw.
        seen: What the network of the map in question saw; None: what the result says.
    """
    wanted = style.view or ('original' if result.kind == 'cam' else 'network')
    seen = seen or NetworkView(result.image, result.geometry)
    image = to_uint8(seen.image, 'image of the result')
    if wanted == 'network':
        return View(image, None)
    if result.original is None or seen.geometry is None or not seen.geometry.exact:
        if style.view == 'original' and result.original is not None:
            logging.getLogger('vistool').warning('the way back to the original is unknown; drawn on the network view')
        return View(image, None)
    return View(to_uint8(result.original, 'original of the result'), seen.geometry)
