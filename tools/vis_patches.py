"""The command ``vis_patches``; see :mod:`vistool.commands.vis_patches`."""

import sys

from vistool.commands.vis_patches import main

if __name__ == '__main__':
    sys.exit(main())
