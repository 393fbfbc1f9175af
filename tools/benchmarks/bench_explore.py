"""Times what a user of vis_explore waits for, in a real Chromium: a click, a drag, another layer, another class.

A click is a mouse event of the browser; it ends when the map of the answer is on the page (the frame after it was
drawn). The CPU time is that of the server's process, forward passes aside. What CAM of another class takes beside its
backward pass is measured in the server: both times are of the same request, while the browser draws. Needs Debian's
``chromium`` and ``chromium-driver``::

    python tools/benchmarks/bench_explore.py
    python tools/benchmarks/bench_explore.py --clicks 20 --model timm::vit_tiny_patch16_224 none
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from pathlib import Path

import torch
from timing import machine

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / 'tests' / 'helpers'))

from browser import start_chromium  # noqa: E402
from explore_page import ExplorePage  # noqa: E402
from explore_server import served  # noqa: E402

PHOTO = ROOT / 'demo' / 'astronaut.png'
VIEWS = ('attention', 'cam', 'similarity', 'pca', 'features', 'patches')
CLASSIFIERS = (
    ('torchvision::resnet50', 'model.layer1'),
    ('torchvision::resnet50', 'model.layer2'),
    ('timm::vit_small_patch16_224', 'model.blocks[6]'),
)
"""Networks and the layers that CAM is drawn at."""
TIMED = '--timed-server'

# Notes when a mouse button goes down, and how long after it a view has drawn an answer and the frame is on the screen.
_WATCH = """
window.watched = { view: arguments[0], start: null, times: [], drawn: [], told: () => {} };
if (!window.watching) {
  window.watching = true;
  document.addEventListener('pointerdown', (event) => { watched.start = event.timeStamp; }, true);
  document.addEventListener('input', (event) => { watched.start = event.timeStamp; }, true);
  document.addEventListener('drawn', (event) => {
    if (event.detail.view !== watched.view) return;
    watched.drawn.push(performance.now());
    const { start } = watched;
    watched.start = null;
    if (start === null) return;
    requestAnimationFrame(() => setTimeout(() => {
      watched.times.push(performance.now() - start);
      watched.told();
    }));
  });
}
"""

# Waits for so many answers without asking again and again, which would take processor time from the server.
_AWAIT = """
const [count, done] = arguments;
watched.told = () => { if (watched.times.length >= count) done(watched.times); };
watched.told();
"""


class Bench:
    """A page whose waits are timed."""

    def __init__(self, driver, server):
        self.page, self.server = ExplorePage(driver), server
        self.page.open(server.url)

    def show(self, *views):
        """Shows these views only; waits until they are drawn."""
        for view in VIEWS:
            box = self.page.one(f'#shown [data-view={view}] input')
            if box.is_selected() != (view in views):
                self.page.js('arguments[0].click()', box)
        self.page.see(views[0])
        time.sleep(0.3)
        self.page.quiet()

    def watch(self, view):
        """Times answers of this view from now on."""
        self.page.js(_WATCH, view)

    def wait(self, count):
        """Milliseconds of the answers so far, once there are so many."""
        return self.page.driver.execute_async_script(_AWAIT, count)

    def mouse(self, kind, x, y):
        """A mouse event at a place of the page."""
        self.page.driver.execute_cdp_cmd(
            'Input.dispatchMouseEvent',
            {'type': kind, 'x': x, 'y': y, 'button': 'left', 'buttons': 1, 'clickCount': 1},
        )

    def clicks(self, view, count):
        """Milliseconds from a click on the view's picture to its map."""
        left, top, wide, tall = self.place(view)
        self.watch(view)
        places = random.Random(0)
        start = self.server.cpu()
        for number in range(count):
            x, y = left + wide * places.uniform(0.05, 0.95), top + tall * places.uniform(0.05, 0.95)
            self.mouse('mousePressed', x, y)
            self.mouse('mouseReleased', x, y)
            self.wait(number + 1)
            self.page.quiet()
        return self.wait(count), 1000 * (self.server.cpu() - start) / count

    def drag(self, view, seconds):
        """Maps per second while the point is dragged."""
        left, top, wide, tall = self.place(view)
        self.watch(view)
        end = time.perf_counter() + seconds
        self.mouse('mousePressed', left + wide / 2, top + tall / 2)
        places = random.Random(1)
        while time.perf_counter() < end:
            self.mouse('mouseMoved', left + wide * places.uniform(0.05, 0.95), top + tall * places.uniform(0.05, 0.95))
            time.sleep(1 / 60)
        drawn = self.page.js('return watched.drawn.length')
        self.mouse('mouseReleased', left + wide / 2, top + tall / 2)
        self.page.quiet()
        return drawn / seconds

    def place(self, view):
        """Left, top, width and height of the view's picture on the page."""
        self.page.see(view)
        code = 'const { x, y, width, height } = arguments[0].getBoundingClientRect(); return [x, y, width, height]'
        return self.page.js(code, self.page.one(f'#{view} .stage'))

    def layers(self, view, count):
        """Milliseconds from a move of the layer's slider to the map."""
        slider = f'#{view} .control input[type=range]'
        most = int(self.page.one(slider).get_attribute('max'))
        self.watch(view)
        for number in range(count):
            self.page.set(slider, number % most)
            self.wait(number + 1)
            self.page.quiet()
        return self.wait(count)

    def classes(self, count):
        """Milliseconds from a click on a class to its map; of the server's work for it; of the backward pass alone."""
        self.watch('cam')
        items = self.page.all('.score-item')
        before = len(self.server.said())
        for number in range(count):
            item = items[1 + number % (len(items) - 1)]
            self.page.js('watched.start = performance.now(); arguments[0].click()', item)
            self.wait(number + 1)
            self.page.quiet()
        work, backward = [], []
        for words in map(str.split, self.server.said()[before:].splitlines()):
            if words[:1] == [TIMED]:
                work.append(float(words[1]))
                backward.append(float(words[2]))
        return self.wait(count), work, backward


def timed_server(words):
    """Runs vis_explore; prints the milliseconds of each map, and those of its backward passes, to stderr."""
    from vistool.commands import vis_explore
    from vistool.explore.session import Session

    spent = {'grad': 0.0, 'map': 0.0}

    def timed(owner, name):
        plain = getattr(owner, name)

        def call(*given, **named):
            start = time.perf_counter()
            try:
                return plain(*given, **named)
            finally:
                spent[name] += 1000 * (time.perf_counter() - start)
                if name == 'map':
                    print(TIMED, *(f'{spent[each]:.3f}' for each in ('map', 'grad')), file=sys.stderr, flush=True)
                    spent.update(grad=0.0, map=0.0)

        setattr(owner, name, call)

    timed(torch.autograd, 'grad')
    timed(Session, 'map')
    return vis_explore.main(words)


def line(name, values, goal=''):
    """Prints a row of the table."""
    low, high = sorted(values)[len(values) // 10], sorted(values)[-1 - len(values) // 10]
    print(f'| {name} | {statistics.median(values):.1f} | {low:.0f}–{high:.0f} | {goal} |', flush=True)


def points(driver, model, clicks):
    """Clicks, drags and layers of the views that follow the point."""
    with served(*model, '--img', PHOTO) as server:
        bench = Bench(driver, server)
        bench.page.shown(PHOTO.name)
        print(_HEAD)
        for view in ('attention', 'similarity'):
            bench.show(view)
            times, cpu = bench.clicks(view, clicks)
            line(f'click, {view} ({cpu:.0f} ms of CPU)', times, '≤ 60')
            line(f'another layer, {view}', bench.layers(view, 24), '≤ 60')
            print(f'| drag, {view}: maps per second | {bench.drag(view, 5):.1f} | | ≥ 10 |', flush=True)
        bench.show(*VIEWS)
        times, cpu = bench.clicks('attention', clicks)
        line(f'click, attention, all views shown ({cpu:.0f} ms of CPU)', times)
        print(f'\nmemory of the server: {server.memory():.0f} MB')


def other_classes(driver, model, layer, clicks):
    """CAM of another class, beside the backward pass that it needs."""
    words = model, 'none', '--target-layers', layer, '--img', PHOTO
    with served(*words, program=(__file__, TIMED)) as server:
        bench = Bench(driver, server)
        bench.page.shown(PHOTO.name)
        bench.show('cam')
        times, work, backward = bench.classes(clicks)
    ratios = [whole / part for whole, part in zip(work, backward, strict=True)]
    print(f'\n{model}, {layer}\n{_HEAD}')
    line('another class, on the page', times)
    line('another class, in the server', work)
    line('its backward pass', backward)
    print(f'| server / backward | {statistics.median(ratios):.2f} | | ≤ 1.3 |', flush=True)


_HEAD = '\n| | ms (median) | 10th–90th | goal |\n| --- | ---: | ---: | --- |'


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--model', nargs=2, default=('timm::vit_small_patch14_dinov2.lvd142m', 'none'))
    parser.add_argument('--clicks', type=int, default=100)
    args = parser.parse_args()
    print(machine())
    driver = start_chromium()
    driver.set_window_size(1400, 1000)
    try:
        points(driver, args.model, args.clicks)
        for model, layer in CLASSIFIERS:
            other_classes(driver, model, layer, min(args.clicks, 90))
    finally:
        driver.quit()


if __name__ == '__main__':
    if sys.argv[1:2] == [TIMED]:
        sys.exit(timed_server(sys.argv[2:]))
    main()
