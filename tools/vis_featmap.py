"""The command ``vis_featmap``; see :mod:`vistool.commands.vis_featmap`."""

import sys

from vistool.commands.vis_featmap import main

if __name__ == '__main__':
    sys.exit(main())
