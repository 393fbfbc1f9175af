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

if TYPE_CHECKING:
    from vistool.analyses import CAM, Attention, BrowseDataset, DatasetReport, FeatureMaps, Patches, Schedule
    from vistool.api import overlay, save, show
    from vistool.errors import InputError
    from vistool.models import Model, load

__version__ = '0.1.0'
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
    'save',
    'show',
]

_HOMES = {
    'Attention': 'vistool.analyses',
    'CAM': 'vistool.analyses',
    'BrowseDataset': 'vistool.analyses',
    'DatasetReport': 'vistool.analyses',
    'InputError': 'vistool.errors',
    'Model': 'vistool.models',
    'FeatureMaps': 'vistool.analyses',
    'Patches': 'vistool.analyses',
    'Schedule': 'vistool.analyses',
    'load': 'vistool.models',
    'overlay': 'vistool.api',
    'save': 'vistool.api',
    'show': 'vistool.api',
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
