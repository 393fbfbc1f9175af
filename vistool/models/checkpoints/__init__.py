"""Checkpoints: read safely, unwrapped, and put into a network with one readable report."""

from vistool.models.checkpoints.reading import Checkpoint, read_checkpoint
from vistool.models.checkpoints.weights import LoadReport, Mismatch, load_weights

__all__ = ['Checkpoint', 'LoadReport', 'Mismatch', 'load_weights', 'read_checkpoint']
