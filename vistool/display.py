"""How a result shows itself in a notebook.

Results hold numbers and know nothing of drawing. The package sets the renderer when it is imported; it is looked up at
the first picture, so nothing heavy is imported before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

renderer: Callable[[Any], bytes] | None = None
"""``result → PNG bytes``; None shows the text of ``repr`` alone."""
