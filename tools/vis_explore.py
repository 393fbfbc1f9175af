"""The command ``vis_explore``; see :mod:`vistool.commands.vis_explore`."""

import sys

from vistool.commands.vis_explore import main

if __name__ == '__main__':
    sys.exit(main())
