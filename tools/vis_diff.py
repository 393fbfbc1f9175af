"""The command ``vis_diff``; see :mod:`vistool.commands.vis_diff`."""

import sys

from vistool.commands.vis_diff import main

if __name__ == '__main__':
    sys.exit(main())
