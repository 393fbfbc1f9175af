"""Results to pictures.

``draw`` (array to array), layouts (result to scene), ``raster`` and ``vector`` (scene to pixels or figure), ``render``
(result to picture), ``visualizer`` (files).
"""

from __future__ import annotations

from vistool.visualization.style import Style
from vistool.visualization.visualizer import Visualizer

__all__ = ['Style', 'Visualizer']
