"""A config's own datasets: opening them, through any wrappers, and reading their annotations without their images."""

from vistool.datasets.items import DatasetItem, DatasetItems, dataset_items
from vistool.datasets.opening import PHASES, open_dataset

__all__ = ['PHASES', 'DatasetItem', 'DatasetItems', 'dataset_items', 'open_dataset']
