"""A web page over a finished run: tiles written during it, the page built at its end."""

from vistool.gallery.build import build_gallery, check_others
from vistool.gallery.tiles import write_tiles

__all__ = ['build_gallery', 'check_others', 'write_tiles']
