"""vistool shows what a vision model and its data pipeline do.

>>> import vistool as vt
>>> model = vt.load('configs/efficientnet_lite/efficientnet-lite0_in1k.py')
>>> result = vt.CAM(['gradcam', 'layercam'], targets=['espresso', 'cup'])(model, model.read('demo/coffee.png'))
>>> paths = vt.save(result, 'figure.pdf')

Names are resolved at first use: importing the package imports nothing heavy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from vistool import display
from vistool.environment import __version__ as __version__

if TYPE_CHECKING:
    from vistool.analyses.attention import Attention
    from vistool.analyses.cam import CAM
    from vistool.analyses.dataset import BrowseDataset, DatasetReport
    from vistool.analyses.featmap import FeatureMaps
    from vistool.analyses.patches import Patches
    from vistool.analyses.schedule import Schedule
    from vistool.errors import InputError
    from vistool.models.model import Model, load
    from vistool.visualization import overlay, render, save, show

__all__ = [
    'CAM',
    'Attention',
    'BrowseDataset',
    'DatasetReport',
    'FeatureMaps',
    'InputError',
    'Model',
    'Patches',
    'Schedule',
    'load',
    'overlay',
    'render',
    'save',
    'show',
]

_HOMES = {
    'Attention': 'vistool.analyses.attention',
    'CAM': 'vistool.analyses.cam',
    'BrowseDataset': 'vistool.analyses.dataset',
    'DatasetReport': 'vistool.analyses.dataset',
    'InputError': 'vistool.errors',
    'Model': 'vistool.models.model',
    'FeatureMaps': 'vistool.analyses.featmap',
    'Patches': 'vistool.analyses.patches',
    'Schedule': 'vistool.analyses.schedule',
    'load': 'vistool.models.model',
    'overlay': 'vistool.visualization',
    'render': 'vistool.visualization',
    'save': 'vistool.visualization',
    'show': 'vistool.visualization',
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


def _render(result: Any) -> bytes:
    from vistool.visualization.pictures import render

    return render(result)


display.renderer = _render
