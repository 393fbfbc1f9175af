"""vistool's registries, children of mmengine's.

``ANALYSES`` holds the analyses, ``TRANSFORMS`` what vistool adds to pipelines (``type='vistool.LocalBinaryPattern'``),
``MODELS`` its wrappers of other libraries' models (``type='vistool.TorchvisionClassifier'``).
Build an analysis with ``ANALYSES.build(dict(type='vistool.CAM', methods=['gradcam']))``;
``list(vistool.analyses.HOMES)`` names them. A user's own registers itself from the user's file through the config's
``custom_imports``.
"""

from __future__ import annotations

from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import TASK_UTILS, Registry
from mmengine.registry import TRANSFORMS as MMENGINE_TRANSFORMS

from vistool.analyses import HOMES

ANALYSES = Registry('analysis', parent=TASK_UTILS, scope='vistool', locations=[*HOMES.values()])
TRANSFORMS = Registry('transform', parent=MMENGINE_TRANSFORMS, scope='vistool', locations=['vistool.inputs.derived'])
MODELS = Registry('model', parent=MMENGINE_MODELS, scope='vistool', locations=['vistool.wrappers'])
CAM_TARGETS = Registry('cam target', scope='vistool')
"""Scores that a class activation map can explain besides a class's: ``cam_target = dict(type='Name', …)`` in a config.

A class whose instances, or a function which, called with ``(output, samples)``, gives one score ``(n,)`` for each image
in the network's output. Without a parent: looking a name up does not depend on the config's default scope.
"""
