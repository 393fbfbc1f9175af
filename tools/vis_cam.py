"""The command ``vis_cam``; see :mod:`vistool.commands.vis_cam`."""

import sys

from vistool.commands.vis_cam import main

if __name__ == '__main__':
    sys.exit(main())
