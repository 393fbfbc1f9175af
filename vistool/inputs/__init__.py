"""From what a user names on the command line to what a network takes."""

from vistool.inputs.imread import read_image
from vistool.inputs.samples import Item, Sample, find_inputs, preprocess

__all__ = ['Item', 'Sample', 'find_inputs', 'preprocess', 'read_image']
