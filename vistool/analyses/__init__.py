"""The analyses, each a dataclass of parameters and a call: ``(model, sample) → result``."""

from vistool.analyses.cam import CAM
from vistool.analyses.patches import Patches

__all__ = ['CAM', 'Patches']
