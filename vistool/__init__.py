"""vistool shows what a vision model and its data pipeline do.

>>> import vistool as vt
>>> model = vt.load('configs/efficientnet_lite/efficientnet-lite0_in1k.py')
>>> result = vt.CAM(['gradcam', 'layercam'], targets=['espresso', 'cup'])(model, model.read('demo/coffee.png'))
>>> paths = vt.save(result, 'figure.pdf')
>>> summary = vt.run(model, 'photos/', vt.CAM(), out='maps', gallery=True)

Names are resolved at first use: importing the package imports nothing heavy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from vistool import display
from vistool.environment import __version__ as __version__

if TYPE_CHECKING:
    from vistool.analyses.attention import Attention
    from vistool.analyses.base import MapAnalysis
    from vistool.analyses.cam import CAM
    from vistool.analyses.check import Check
    from vistool.analyses.dataset import BrowseDataset, DatasetReport
    from vistool.analyses.embedding import DatasetEmbedding
    from vistool.analyses.featmap import FeatureMaps
    from vistool.analyses.patches import Patches
    from vistool.analyses.schedule import Schedule
    from vistool.data.geometry import Geometry
    from vistool.data.samples import Sample
    from vistool.errors import InputError
    from vistool.models.model import Model, load, preview_model
    from vistool.results import (
        ChannelStack,
        ChannelStatistics,
        Coordinates,
        Curve,
        Curves,
        DatasetSummary,
        EmbeddingMap,
        GridImage,
        HeadStatistics,
        Heatmap,
        Heatmaps,
        ImageGrid,
        NetworkView,
        Result,
        Target,
        confusion_matrix,
    )
    from vistool.runs.differences import RunDifference, compare_runs
    from vistool.runs.run import run
    from vistool.runs.spec import Failure, RunSummary
    from vistool.training import ExplainHook, LearningRateHook
    from vistool.visualization import overlay, render, save, show
    from vistool.visualization.style import Style

__all__ = [
    'CAM',
    'Attention',
    'BrowseDataset',
    'ChannelStack',
    'ChannelStatistics',
    'Check',
    'Coordinates',
    'Curve',
    'Curves',
    'DatasetEmbedding',
    'DatasetReport',
    'DatasetSummary',
    'EmbeddingMap',
    'ExplainHook',
    'Failure',
    'FeatureMaps',
    'Geometry',
    'GridImage',
    'HeadStatistics',
    'Heatmap',
    'Heatmaps',
    'ImageGrid',
    'InputError',
    'LearningRateHook',
    'MapAnalysis',
    'Model',
    'NamedInputs',
    'NetworkView',
    'Patches',
    'PositionalInputs',
    'Result',
    'RunDifference',
    'RunSummary',
    'Sample',
    'Schedule',
    'Style',
    'Target',
    'compare_runs',
    'confusion_matrix',
    'load',
    'overlay',
    'preview_model',
    'render',
    'run',
    'save',
    'show',
]

_HOMES = {
    'vistool.analyses.base': ('MapAnalysis',),
    'vistool.data.geometry': ('Geometry',),
    'vistool.data.inputs': ('NamedInputs', 'PositionalInputs'),
    'vistool.data.samples': ('Sample',),
    'vistool.errors': ('InputError',),
    'vistool.models.model': ('Model', 'load', 'preview_model'),
    'vistool.results': (
        'ChannelStack',
        'ChannelStatistics',
        'Coordinates',
        'Curve',
        'Curves',
        'DatasetSummary',
        'EmbeddingMap',
        'GridImage',
        'HeadStatistics',
        'Heatmap',
        'Heatmaps',
        'ImageGrid',
        'NetworkView',
        'Result',
        'Target',
        'confusion_matrix',
    ),
    'vistool.runs.differences': ('RunDifference', 'compare_runs'),
    'vistool.runs.spec': ('Failure', 'RunSummary'),
    'vistool.runs.run': ('run',),
    'vistool.training': ('ExplainHook', 'LearningRateHook'),
    'vistool.visualization': ('overlay', 'render', 'save', 'show'),
    'vistool.visualization.style': ('Style',),
}
"""The names of each module, imported at first use; the analyses are those of ``registry.ANALYSIS_MODULES``."""


def __getattr__(name: str) -> object:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(module), name)
    if name in __all__:
        from vistool.registry import ANALYSIS_MODULES

        return getattr(importlib.import_module(ANALYSIS_MODULES[name]), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


def _render(result: Result) -> bytes:
    from vistool.visualization.kinds import render

    return render(result)


display.renderer = _render
