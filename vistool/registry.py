"""vistool's registries, children of mmengine's, and the scope in which a config's names are looked up.

``ANALYSES`` holds the analyses, ``TRANSFORMS`` vistool's transforms for pipelines
(``type='vistool.LocalBinaryPattern'``), ``MODELS`` its wrappers of other libraries' models
(``type='vistool.TorchvisionClassifier'``), and ``CAM_TARGETS`` scores of the user's own.

``ANALYSES.build(dict(type='vistool.CAM', methods=['gradcam']))`` builds an analysis. A user's own class is registered
by a decorator in the user's file, which the config's ``custom_imports`` loads.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import TASK_UTILS, DefaultScope, Registry
from mmengine.registry import TRANSFORMS as MMENGINE_TRANSFORMS

if TYPE_CHECKING:
    from mmengine.config import Config

ANALYSIS_MODULES = {
    'Attention': 'vistool.analyses.attention',
    'BrowseDataset': 'vistool.analyses.dataset',
    'CAM': 'vistool.analyses.cam',
    'DatasetReport': 'vistool.analyses.dataset',
    'FeatureMaps': 'vistool.analyses.featmap',
    'Patches': 'vistool.analyses.patches',
    'Schedule': 'vistool.analyses.schedule',
}
"""vistool's own analyses by name, and the module of each: the one place where an analysis is declared."""

ANALYSES = Registry('analysis', parent=TASK_UTILS, scope='vistool', locations=sorted({*ANALYSIS_MODULES.values()}))
TRANSFORMS = Registry('transform', parent=MMENGINE_TRANSFORMS, scope='vistool', locations=['vistool.data.derived'])
MODELS = Registry('model', parent=MMENGINE_MODELS, scope='vistool', locations=['vistool.models.wrappers'])
CAM_TARGETS = Registry('cam target', scope='vistool')
"""Scores, other than those of classes, that a class activation map can explain: ``cam_target = dict(type='Name', …)``.

Each is a function, or a class with instances, that is called with ``(output, samples)`` and returns one score ``(n,)``
for each image in the network's output. The registry has no parent, so that a name is found in every default scope.
"""


def scope_of(config: Config, default: str = 'mmengine') -> str:
    """The package whose registries a config's names are looked up in.

    Args:
        config: The config.
        default: The package if the config has no ``default_scope``.
    """
    scope = config.get('default_scope') or default
    return 'mmpretrain' if scope == 'mmcls' else str(scope)


def in_scope(config: Config, default: str = 'mmengine') -> AbstractContextManager[Any]:
    """Makes registries resolve names as the config's own training would; see :func:`scope_of`."""
    return DefaultScope.overwrite_default_scope(scope_of(config, default))
