"""One photo, live: a page on this machine that shows what a model does with a photo, view by view.

A request of the page is a :class:`~vistool.explore.view.View`. A :class:`~vistool.explore.reading.Reading` keeps what
one forward of a photo gives, so that a click needs rows of it only; the kinds of views are in the modules ``view_…``.
:mod:`~vistool.explore.session` holds models, photos and readings, :mod:`~vistool.explore.worker` runs model work in one
thread, and :mod:`~vistool.explore.server` is the web server. Maps are those of the analyses, and every view names the
command that draws it.
"""
