"""The Chinese site: ``sphinx-build -nW --keep-going docs/zh_cn build/site/zh_cn``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from conf_base import *  # noqa: F403

language = 'zh_CN'
