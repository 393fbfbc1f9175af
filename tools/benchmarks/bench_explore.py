"""Times what a user of vis_explore waits for, in a real Chromium: a click, a drag, another layer, another class.

A click is a mouse event of the browser; it ends when the map of the answer is on the page (the frame after it was
drawn). The CPU time is that of the server's process, forward passes aside. Needs Debian's ``chromium`` and
``chromium-driver``::

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
from torchvision.models import resnet50

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / 'tests' / 'helpers'))

from browser import start_chromium  # noqa: E402
from explore_page import ExplorePage  # noqa: E402
from explore_server import served  # noqa: E402

PHOTO = ROOT / 'demo' / 'astronaut.png'
VIEWS = ('attention', 'cam', 'similarity', 'pca', 'features', 'patches')

# Notes when a mouse button goes down, and how long after it a view has drawn an answer and the frame is on the screen.
_WATCH = """
window.watched = { view: arguments[0], start: null, times: [], drawn: [] };
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
    requestAnimationFrame(() => setTimeout(() => watched.times.push(performance.now() - start)));
  });
}
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
        self.page.wait(lambda: self.page.js('return watched.times.length') >= count)
        return self.page.js('return watched.times')

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
        """Milliseconds from a click on a class to its map, and the server's part of it."""
        self.watch('cam')
        seconds = []
        items = self.page.all('.score-item')
        for number in range(count):
            self.page.js(
                'watched.start = performance.now(); arguments[0].click()', items[1 + number % (len(items) - 1)]
            )
            self.wait(number + 1)
            self.page.quiet()
            seconds.append(1000 * self.page.answer('cam')['seconds'])
        return self.wait(count), seconds


def backward(rounds):
    """Milliseconds of the backward pass through what follows layer2 of a ResNet-50, for one class."""
    torch.manual_seed(0)
    model = resnet50().eval()
    *early, layer3, layer4, pool, head = model.children()
    with torch.no_grad():
        values = torch.nn.Sequential(*early)(torch.randn(1, 3, 224, 224))
    values = values.requires_grad_()
    scores = head(pool(layer4(layer3(values))).flatten(1))
    found = []
    for number in range(rounds + 3):
        start = time.perf_counter()
        torch.autograd.grad(scores[0, number], values, retain_graph=True)
        if number >= 3:
            found.append(1000 * (time.perf_counter() - start))
    return found


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


def other_classes(driver, clicks):
    """CAM of another class on ResNet-50, beside the backward that it needs."""
    with served('torchvision::resnet50', 'none', '--target-layers', 'model.layer2', '--img', PHOTO) as server:
        bench = Bench(driver, server)
        bench.page.shown(PHOTO.name)
        bench.show('cam')
        times, seconds = bench.classes(clicks)
    print(_HEAD)
    line('another class, on the page', times)
    line('another class, in the server', seconds, '≤ 1.3 × the backward')
    line('backward through what follows layer2', backward(clicks))


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
        other_classes(driver, min(args.clicks, 90))
    finally:
        driver.quit()


if __name__ == '__main__':
    main()
