"""vistool's registries, children of mmengine's, so that their entries can be named in any config as ``vistool.NAME``.

``ANALYSES`` holds the analyses, ``TRANSFORMS`` what vistool adds to pipelines (``type='vistool.LocalBinaryPattern'``),
``MODELS`` its wrappers of other libraries' models (``type='vistool.TorchvisionClassifier'``).
Build an analysis with ``ANALYSES.build(dict(type='vistool.CAM', methods=['gradcam']))``; ``list(ANALYSES.module_dict)``
names them. A user's own registers itself from the user's file through the config's ``custom_imports``.
"""

from __future__ import annotations

from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import TASK_UTILS, Registry
from mmengine.registry import TRANSFORMS as MMENGINE_TRANSFORMS

ANALYSES = Registry('analysis', parent=TASK_UTILS, scope='vistool', locations=['vistool.analyses'])
TRANSFORMS = Registry('transform', parent=MMENGINE_TRANSFORMS, scope='vistool', locations=['vistool.inputs.derived'])
MODELS = Registry('model', parent=MMENGINE_MODELS, scope='vistool', locations=['vistool.wrappers'])
