"""Makes the animation of docs/en/vis_explore.md from screenshots of the page.

Needs what the tests of the page need, and the weights of the extra ``demo``::

    python tests/explore/record_animation.py
"""

from __future__ import annotations

import io
import itertools
import math
import sys
import time
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / 'tests' / 'helpers'))

from browser import start_chromium  # noqa: E402
from explore_page import ExplorePage  # noqa: E402
from explore_server import served  # noqa: E402

TARGET = ROOT / 'docs' / 'images' / 'vis_explore' / 'live.webp'
MODEL = ('configs/dinov2/vit-small-p14_dinov2-pre_headless.py', 'demo://dinov2-vit-small-p14')
WINDOW = (1280, 800)
SIZE = (1120, 700)
PLACES = ((225, 110), (40, 150), (110, 350), (330, 470), (410, 170), (225, 110))
STEPS = 5


def path():
    """Pixels of the photo on the way of the pointer: slow at each place, fast between."""
    for (x, y), (right, below) in itertools.pairwise(PLACES):
        for step in range(STEPS):
            share = (1 - math.cos(math.pi * step / STEPS)) / 2
            yield round(x + share * (right - x)), round(y + share * (below - y))
    yield PLACES[-1]


def main() -> None:
    """Records and writes."""
    driver = start_chromium()
    frames, lengths = [], []

    def shoot(milliseconds):
        picture = Image.open(io.BytesIO(driver.get_screenshot_as_png())).convert('RGB')
        frames.append(picture.resize(SIZE, Image.Resampling.LANCZOS))
        lengths.append(milliseconds)

    try:
        with served(*MODEL, '--img', ROOT / 'demo' / 'astronaut.png') as server:
            page = ExplorePage(driver)
            measures = {'width': WINDOW[0], 'height': WINDOW[1], 'deviceScaleFactor': 1, 'mobile': False}
            driver.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', measures)
            page.open(server.url)
            page.shown('astronaut.png')
            page.one('#shown [data-view=cam]').click()
            page.quiet()
            for place in path():
                page.click(*place, '#attention .stage')
                page.js('scrollTo(0, 0)')
                time.sleep(0.1)
                page.quiet()
                time.sleep(0.1)
                shoot(700 if place in PLACES else 110)
            for head in range(2, 8):
                page.set('#attention .control:nth-child(4) input', head)
                page.js('scrollTo(0, 0)')
                time.sleep(0.1)
                page.quiet()
                time.sleep(0.1)
                shoot(500)
    finally:
        driver.quit()
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    frames[0].save(
        TARGET,
        save_all=True,
        append_images=frames[1:],
        duration=lengths,
        loop=0,
        quality=60,
        method=6,
        minimize_size=True,
    )
    print(f'{TARGET} {TARGET.stat().st_size / 1e6:.2f} MB, {len(frames)} frames')


if __name__ == '__main__':
    main()
