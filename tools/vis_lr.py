"""The command ``vis_lr``; see :mod:`vistool.commands.vis_lr`."""

import sys

from vistool.commands.vis_lr import main

if __name__ == '__main__':
    sys.exit(main())
