"""vistool's registries: children of mmengine's, so that its entries can be named in any config as ``vistool.NAME``.

Build an analysis from a config with ``ANALYSES.build(dict(type='vistool.CAM', methods=['gradcam']))``; ``list(ANALYSES.module_dict)``
names them. A user's own analysis registers itself from the user's file through the config's ``custom_imports``.
"""

from __future__ import annotations

from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import TASK_UTILS, Registry

ANALYSES = Registry('analysis', parent=TASK_UTILS, scope='vistool', locations=['vistool.analyses'])

MODELS = Registry('model', parent=MMENGINE_MODELS, scope='vistool', locations=['vistool.wrappers'])
