"""The analyses, each a dataclass of parameters and a call: ``(model, sample) → result``."""

from vistool.analyses.attention import Attention
from vistool.analyses.cam import CAM

__all__ = ['CAM', 'Attention']
