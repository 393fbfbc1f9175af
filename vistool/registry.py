"""vistool's registries, children of mmengine's.

``ANALYSES`` holds the analyses, ``TRANSFORMS`` what vistool adds to pipelines (``type='vistool.LocalBinaryPattern'``).
Build an analysis with ``ANALYSES.build(dict(type='vistool.CAM', methods=['gradcam']))``; ``list(ANALYSES.module_dict)``
names them. A user's own registers itself from the user's file through the config's ``custom_imports``.
"""

from __future__ import annotations

from mmengine.registry import TASK_UTILS, Registry
from mmengine.registry import TRANSFORMS as MMENGINE_TRANSFORMS

ANALYSES = Registry('analysis', parent=TASK_UTILS, scope='vistool', locations=['vistool.analyses'])
TRANSFORMS = Registry('transform', parent=MMENGINE_TRANSFORMS, scope='vistool', locations=['vistool.inputs.derived'])
