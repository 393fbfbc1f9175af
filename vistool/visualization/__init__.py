"""Results to pictures.

``kinds`` declares what each kind of result becomes. ``heatmaps`` and ``grids`` lay results out as a scene; ``raster``
and ``vector`` paint scenes as pixels or figures; ``pictures`` makes pictures, ``visualizer`` writes files.
"""

from __future__ import annotations

from vistool.visualization.kinds import overlay, render, show
from vistool.visualization.style import Style
from vistool.visualization.visualizer import Visualizer, save

__all__ = ['Style', 'Visualizer', 'overlay', 'render', 'save', 'show']
