"""The command ``vis_check``; see :mod:`vistool.commands.vis_check`."""

import sys

from vistool.commands.vis_check import main

if __name__ == '__main__':
    sys.exit(main())
