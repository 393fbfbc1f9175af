"""The command ``browse_dataset``; see :mod:`vistool.commands.browse_dataset`."""

import sys

from vistool.commands.browse_dataset import main

if __name__ == '__main__':
    sys.exit(main())
