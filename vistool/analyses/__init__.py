"""The analyses, each a dataclass of parameters and a call: ``(model, sample) → result``."""

from vistool.analyses.cam import CAM
from vistool.analyses.dataset import BrowseDataset
from vistool.analyses.dataset_report import DatasetReport

__all__ = ['CAM', 'BrowseDataset', 'DatasetReport']
