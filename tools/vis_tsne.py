"""The command ``vis_tsne``; see :mod:`vistool.commands.vis_tsne`."""

import sys

from vistool.commands.vis_tsne import main

if __name__ == '__main__':
    sys.exit(main())
