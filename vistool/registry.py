"""The registry of analyses, a child of mmengine's ``TASK_UTILS``.

Build one from a config with ``ANALYSES.build(dict(type='vistool.CAM', methods=['gradcam']))``; ``list(ANALYSES.module_dict)``
names them. A user's own analysis registers itself from the user's file through the config's ``custom_imports``.
"""

from __future__ import annotations

from mmengine.registry import TASK_UTILS, Registry

from vistool.analyses import HOMES

ANALYSES = Registry('analysis', parent=TASK_UTILS, scope='vistool', locations=[*HOMES.values()])
