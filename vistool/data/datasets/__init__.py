"""A config's own datasets: opening them, through any wrappers, and reading their annotations without their images."""

from vistool.data.datasets.opening import PHASES, DatasetItem, DatasetItems, dataset_items, open_dataset

__all__ = ['PHASES', 'DatasetItem', 'DatasetItems', 'dataset_items', 'open_dataset']
