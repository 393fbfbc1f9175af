"""The analyses, each a dataclass of parameters and a call: ``(model, sample) → result``."""

from vistool.analyses.cam import CAM
from vistool.analyses.dataset import BrowseDataset
from vistool.analyses.dataset_report import DatasetReport
from vistool.analyses.patches import Patches

__all__ = ['CAM', 'BrowseDataset', 'DatasetReport', 'Patches']
