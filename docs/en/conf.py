"""The English site: ``sphinx-build -nW --keep-going docs/en build/site/en``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from conf_base import *  # noqa: F403

language = 'en'
