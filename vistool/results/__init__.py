"""What analyses return: frozen, inert kinds of result."""

from vistool.results.curves import Curve, Curves
from vistool.results.datasets import DatasetSummary
from vistool.results.grids import Cut, GridImage, ImageGrid
from vistool.results.heatmaps import Heatmap, Heatmaps, NetworkView, side_by_side

Result = Heatmaps | ImageGrid | Curves

__all__ = [
    'Curve',
    'Curves',
    'Cut',
    'DatasetSummary',
    'GridImage',
    'Heatmap',
    'Heatmaps',
    'ImageGrid',
    'NetworkView',
    'Result',
    'side_by_side',
]
