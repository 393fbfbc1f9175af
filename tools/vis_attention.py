"""The command ``vis_attention``; see :mod:`vistool.commands.vis_attention`."""

import sys

from vistool.commands.vis_attention import main

if __name__ == '__main__':
    sys.exit(main())
