"""Where a network pixel lies on the original photo: maps of coordinates, and arrays brought along them."""

from vistool.geometry.mapping import Geometry, Size, Step, affine, crop, erase, flip, resize, window

__all__ = ['Geometry', 'Size', 'Step', 'affine', 'crop', 'erase', 'flip', 'resize', 'window']
