"""From what a user names to a config: a file, ``mmpretrain::…``, a model name, a run, a model without config."""

from vistool.models.configs.packaged import PACKAGES
from vistool.models.configs.resolving import (
    SCHEMES,
    Source,
    make_current_folder_importable,
    read_config,
    require_model,
    resolve,
)

__all__ = ['PACKAGES', 'SCHEMES', 'Source', 'make_current_folder_importable', 'read_config', 'require_model', 'resolve']
