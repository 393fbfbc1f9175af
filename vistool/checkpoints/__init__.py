"""Checkpoints: read safely, unwrapped, and put into a network with one readable report."""

from vistool.checkpoints.load_report import LoadReport, Mismatch
from vistool.checkpoints.reading import Checkpoint, read_checkpoint
from vistool.checkpoints.weights import load_weights

__all__ = ['Checkpoint', 'LoadReport', 'Mismatch', 'load_weights', 'read_checkpoint']
