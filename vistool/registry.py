"""vistool's registries, children of mmengine's.

``ANALYSES`` holds the analyses, ``TRANSFORMS`` what vistool adds to pipelines (``type='vistool.LocalBinaryPattern'``),
``MODELS`` its wrappers of other libraries' models (``type='vistool.TorchvisionClassifier'``).
Build an analysis with ``ANALYSES.build(dict(type='vistool.CAM', methods=['gradcam']))``;
``list(ANALYSIS_MODULES)`` names them. A user's own registers itself from the user's file through the config's
``custom_imports``.
"""

from __future__ import annotations

from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import TASK_UTILS, Registry
from mmengine.registry import TRANSFORMS as MMENGINE_TRANSFORMS

ANALYSIS_MODULES = {
    'Attention': 'vistool.analyses.attention',
    'BrowseDataset': 'vistool.analyses.dataset',
    'CAM': 'vistool.analyses.cam',
    'DatasetReport': 'vistool.analyses.dataset',
    'FeatureMaps': 'vistool.analyses.featmap',
    'Patches': 'vistool.analyses.patches',
    'Schedule': 'vistool.analyses.schedule',
}
"""Analyses and the modules that register them: what a new analysis is declared by."""

ANALYSES = Registry('analysis', parent=TASK_UTILS, scope='vistool', locations=[*ANALYSIS_MODULES.values()])
TRANSFORMS = Registry('transform', parent=MMENGINE_TRANSFORMS, scope='vistool', locations=['vistool.data.derived'])
MODELS = Registry('model', parent=MMENGINE_MODELS, scope='vistool', locations=['vistool.models.wrappers'])
CAM_TARGETS = Registry('cam target', scope='vistool')
"""Scores that a class activation map can explain besides a class's: ``cam_target = dict(type='Name', …)`` in a config.

A class whose instances, or a function which, called with ``(output, samples)``, gives one score ``(n,)`` for each image
in the network's output. Without a parent: looking a name up does not depend on the config's default scope.
"""
