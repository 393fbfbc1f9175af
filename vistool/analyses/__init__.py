"""The analyses, each a dataclass of parameters and a call: ``(model, sample) → result``.

Each has its own imports, and is imported when it is first used: a schedule needs none of what a heat map needs.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vistool.analyses.attention import Attention
    from vistool.analyses.cam import CAM
    from vistool.analyses.dataset import BrowseDataset
    from vistool.analyses.dataset_report import DatasetReport
    from vistool.analyses.featmap import FeatureMaps
    from vistool.analyses.patches import Patches
    from vistool.analyses.schedule import Schedule

__all__ = ['CAM', 'Attention', 'BrowseDataset', 'DatasetReport', 'FeatureMaps', 'Patches', 'Schedule']

HOMES = {
    'Attention': 'vistool.analyses.attention',
    'CAM': 'vistool.analyses.cam',
    'BrowseDataset': 'vistool.analyses.dataset',
    'DatasetReport': 'vistool.analyses.dataset_report',
    'FeatureMaps': 'vistool.analyses.featmap',
    'Patches': 'vistool.analyses.patches',
    'Schedule': 'vistool.analyses.schedule',
}
"""Analyses and the modules that register them."""


def __getattr__(name: str) -> Any:
    if name in HOMES:
        return getattr(importlib.import_module(HOMES[name]), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
