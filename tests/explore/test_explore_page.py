"""The page of vis_explore in a real browser, on real servers: what it shows is what the commands write.

Needs Debian's ``chromium`` and ``chromium-driver``, and ``selenium``.
"""

from __future__ import annotations

import importlib
import io
import os
import shlex
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from explore_server import ROOT, Server, served
from PIL import Image

from vistool.visualization.raster import colorize, normalize, resize_map
from vistool.visualization.style import lookup_table

pytestmark = pytest.mark.slow

DINO = 'configs/dinov2/vit-small-p14_dinov2-pre_headless.py'
LITE = 'configs/efficientnet_lite/efficientnet-lite0_in1k.py'
FACE = (225, 110)


def drawn(command, folder, monkeypatch):
    """The maps that a command writes as ``.npz``, and the bytes of that file and of the picture."""
    here = folder / str(time.monotonic_ns())  # files keep their names
    here.mkdir()
    for name in ('configs', 'demo', 'demo/astronaut.png', 'demo/coffee.png'):
        os.symlink(ROOT / name, here / Path(name).name)
    tool, *words = shlex.split(command)
    with monkeypatch.context() as there:
        there.chdir(here)
        assert importlib.import_module(f'vistool.commands.{tool}').main(words) == 0
    raw, picture = (here / Path(words[words.index('-o') + 1]).with_suffix(suffix) for suffix in ('.npz', '.png'))
    return maps_of(raw.read_bytes()), raw.read_bytes(), picture.read_bytes()


def maps_of(raw):
    with np.load(io.BytesIO(raw), allow_pickle=False) as found:
        return np.concatenate([found[f'maps_{number}'] for number in range(len(found['groups']))])


def same(answer, maps):
    assert len(answer['maps']) == len(maps)
    for entry, values in zip(answer['maps'], maps, strict=True):
        np.testing.assert_allclose(entry['values'], values, rtol=0, atol=1e-5)


def saved(page, downloads, view, format, model=0):
    """The file that "Save figure" gives."""
    before = set(downloads.iterdir())
    page.see(view)
    pane = page.all(f'#{view} .pane')[model]
    pane.find_element('css selector', 'summary').click()
    place = ['png', 'pdf', 'npz', 'zip'].index(format)
    pane.find_elements('css selector', '.items button')[place].click()

    def new():
        return [each for each in set(downloads.iterdir()) - before if each.suffix == f'.{format}']

    page.wait(new)
    return new()[0].read_bytes()


@pytest.fixture(scope='module')
def dino():
    with served(DINO, 'demo://dinov2-vit-small-p14') as server:
        yield server


def test_a_photo_is_dropped_and_every_map_is_that_of_its_command(page, dino, downloads, tmp_path, monkeypatch):
    page.open(dino.url)
    page.drop(ROOT / 'demo' / 'astronaut.png')
    (first,) = page.after(lambda: page.click(*FACE), 'attention')
    x, y = page.point()
    assert abs(x - FACE[0]) <= 2 and abs(y - FACE[1]) <= 2  # a pixel of the page is more than one of the photo
    assert first['token']['inside'] and f'{x},{y}' in first['command']
    maps, raw, picture = drawn(first['command'], tmp_path, monkeypatch)
    same(first, maps)
    assert saved(page, downloads, 'attention', 'npz') == raw
    assert saved(page, downloads, 'attention', 'png') == picture
    with zipfile.ZipFile(io.BytesIO(saved(page, downloads, 'attention', 'zip'))) as both:
        assert {Path(name).suffix for name in both.namelist()} == {'.png', '.pdf', '.npz'}

    layer, head = '#attention .control:nth-child(3) input', '#attention .control:nth-child(4) input'
    (of_head,) = page.after(lambda: page.set(head, 4), 'attention')  # mean, max, 0, 1, 2
    assert page.one('#attention .control:nth-child(4) output').text == '2 / 5'
    same(of_head, drawn(of_head['command'], tmp_path, monkeypatch)[0])
    (lower,) = page.after(lambda: page.set(layer, 4), 'attention')
    assert page.one('#attention .control:nth-child(3) output').text == '4 / 11'
    same(lower, drawn(lower['command'], tmp_path, monkeypatch)[0])
    assert not np.allclose(lower['maps'][0]['values'], of_head['maps'][0]['values'], atol=1e-4)

    page.see('similarity')
    page.wait(lambda: page.answer('similarity'))
    slider = '#similarity .control input'
    (alike,) = page.after(lambda: page.set(slider, 3), 'similarity')
    same(alike, drawn(alike['command'], tmp_path, monkeypatch)[0])
    row, column = alike['token']['row'], alike['token']['column']
    assert alike['maps'][0]['values'][row, column] == pytest.approx(1, abs=1e-5)

    for view in ('pca', 'features'):
        page.see(view)
        page.wait(lambda view=view: page.answer(view))
        page.quiet()
        shown = page.answer(view)
        same(shown, drawn(shown['command'], tmp_path, monkeypatch)[0])
    assert len(page.all('#features .maps button')) == 12
    page.see('patches')
    page.wait(lambda: page.answer('patches'))
    token = page.answer('patches')['token']
    assert page.one('#patches .value b').text == f'token {token["number"]}'
    # This network has no classes: what speaks for one is not offered.
    assert not page.one('#cam .class-search').is_displayed()


def test_keys_move_the_point_by_one_token(page, dino):
    page.open(dino.url)
    page.drop(ROOT / 'demo' / 'astronaut.png')
    (start,) = page.after(lambda: page.click(*FACE), 'attention')
    page.js("document.querySelector('#attention .stage').focus()")
    (right,) = page.after(lambda: page.keys('ARROW_RIGHT'), 'attention')
    assert right['token']['number'] == start['token']['number'] + 1
    (below,) = page.after(lambda: page.keys('ARROW_DOWN'), 'attention')
    assert below['token']['number'] == right['token']['number'] + below['maps'][0]['width']


@pytest.fixture(scope='module')
def lite():
    with served(LITE, 'demo://efficientnet-lite0', '--img', 'demo/coffee.png', '--compare', LITE, 'none') as server:
        yield server


def test_two_models_answer_the_same_click_and_class(page, lite, tmp_path, monkeypatch):
    page.open(lite.url)
    page.shown('coffee.png')
    page.see('cam')
    page.wait(lambda: page.answer('cam') and page.answer('cam', 1))
    first = page.answer('cam')
    same(first, drawn(first['command'], tmp_path, monkeypatch)[0])

    predicted = page.all('.score-item[aria-pressed=true]')
    assert [each.get_attribute('data-class') for each in predicted] in (['espresso'], ['espresso'] * 2)
    other = page.answer('cam', 1)  # held to the class that the first model predicts
    assert other['maps'][0]['coordinates']['target'] == first['maps'][0]['coordinates']['target']

    page.one('#cam .class-search input').click()
    page.keys(*'cup')
    page.wait(lambda: [each for each in page.all('#cam [role=option]') if each.text.startswith('cup')])
    (searched,) = page.after(lambda: page.keys('ENTER'), 'cam')
    assert page.one('#cam .class-search input').get_attribute('value') == 'cup'
    same(searched, drawn(searched['command'], tmp_path, monkeypatch)[0])

    other = page.all('.score-item')[1]
    name = other.get_attribute('data-class')
    (clicked,) = page.after(other.click, 'cam')
    assert other.get_attribute('aria-pressed') == 'true'
    assert page.one('#cam .class-search input').get_attribute('value') == name
    same(clicked, drawn(clicked['command'], tmp_path, monkeypatch)[0])
    page.wait(lambda: (page.answer('cam', 1) or {}).get('command', '').count(shlex.split(clicked['command'])[-1]))

    page.one('#cam .class-search input').click()
    page.keys(*'king of beasts')  # a synonym; scores and commands have the first
    page.wait(lambda: [each for each in page.all('#cam [role=option]') if each.text.startswith('lion')])
    (lion,) = page.after(lambda: page.keys('ENTER'), 'cam')
    assert page.one('#cam .class-search input').get_attribute('value') == 'lion' and ' 291 ' in lion['command']
    page.wait(lambda: ' 291 ' in (page.answer('cam', 1) or {'command': ''})['command'])
    sauce = page.one('.score-item[data-class="chocolate sauce"]')  # also called chocolate syrup
    (clicked,) = page.after(sauce.click, 'cam')
    assert clicked['maps'][0]['coordinates']['target'] == 'chocolate sauce'

    page.see('similarity')
    (one,) = page.after(lambda: page.click(300, 200, '#similarity .stage'), 'similarity')
    page.quiet()
    two = page.answer('similarity', 1)
    assert f'{page.point()[0]},{page.point()[1]}' in one['command']
    assert one['token'] == two['token'] and two['model'] == 1
    assert not np.allclose(one['maps'][0]['values'], two['maps'][0]['values'], atol=1e-3)
    # A network of convolutions has no attention; its button says why.
    label = page.one('#shown [data-view=attention]')
    assert not page.one('#attention').is_displayed() and label.get_attribute('title')


def test_two_models_fit_on_the_screen_of_a_phone(page, lite):
    page.open(lite.url)
    page.shown('coffee.png')
    measures = {'width': 390, 'height': 844, 'deviceScaleFactor': 1, 'mobile': False}
    page.driver.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', measures)
    try:
        page.see('cam')
        page.wait(lambda: page.answer('cam') and page.answer('cam', 1))
        first, second = (
            page.js('return arguments[0].getBoundingClientRect()', each) for each in page.all('#cam .stage')
        )
        assert first['bottom'] < second['top'] and second['bottom'] - first['top'] < 844
        assert page.js('const e = document.documentElement; return e.scrollWidth - e.clientWidth') <= 0
    finally:
        page.driver.execute_cdp_cmd('Emulation.clearDeviceMetricsOverride', {})


@pytest.fixture(scope='module')
def tiny():
    """A small network, for what is about the server and the page."""
    server = Server('timm::vit_tiny_patch16_224', 'none')
    yield server
    assert server.stop() in (0, 130)


def photo(color, size=(96, 64), mode='RGB'):
    data = io.BytesIO()
    Image.new(mode, size, color).save(data, 'PNG')
    return data.getvalue()


def test_colors_are_those_of_the_figures(page, tiny):
    page.open(tiny.url)
    values = np.random.default_rng(0).normal(size=(7, 9)).astype(np.float32)
    code = """
    const [values, limits, colormap, diverging, done] = arguments;
    import(new URL('page/paint.js', location.href)).then(({ enlarge, paintMap }) => {
      const map = { values: Float32Array.from(values), width: 9, height: 7, channels: 1, limits, diverging };
      const canvas = document.createElement('canvas');
      paintMap(canvas, map, { colormap });
      const { data } = canvas.getContext('2d').getImageData(0, 0, 9, 7);
      done([[...data], [...enlarge(map, 31, 20)]]);
    });
    """
    for limits, colormap, diverging in (((-1.5, 2.0), 'inferno', False), ((-2.0, 2.0), 'RdBu_r', True)):
        given = values.ravel().tolist(), limits, colormap, diverging
        pixels, larger = page.driver.execute_async_script(code, *given)
        expected = colorize(normalize(values, *limits), lookup_table(colormap))
        np.testing.assert_array_equal(np.array(pixels).reshape(7, 9, 4)[..., :3], expected)
        np.testing.assert_allclose(np.reshape(larger, (20, 31)), resize_map(values, (20, 31)), atol=1e-5)


def test_two_tabs_have_two_photos(page, tiny):
    page.open(tiny.url)
    page.drop(photo('red'), 'red.png')
    first = page.driver.current_window_handle
    page.driver.switch_to.new_window('tab')
    try:
        page.open(tiny.url)
        assert page.js("return document.querySelector('#main').dataset.state") == 'empty'
        page.drop(photo('blue', (80, 80)), 'blue.png')
        (blue,) = page.after(lambda: page.click(40, 40), 'attention')
    finally:
        page.driver.close()
        page.driver.switch_to.window(first)
    assert page.one('#photo-name').text == 'red.png, 96×64'
    (red,) = page.after(lambda: page.click(20, 20), 'attention')
    assert red['photo'] != blue['photo'] and 'red.png' in red['command'] and 'blue.png' in blue['command']


def test_a_reload_shows_the_photos_of_the_tab_again(page, tiny):
    page.open(tiny.url)
    for color, size in (('red', (96, 64)), ('lime', (64, 64)), ('blue', (80, 80))):
        page.drop(photo(color, size), f'{color}.png')
    page.all('#strip button')[1].click()
    page.shown('lime.png')
    page.driver.refresh()
    page.shown('lime.png, 64×64')
    assert [each.get_attribute('title') for each in page.all('#strip button')] == ['red.png', 'lime.png', 'blue.png']
    assert page.one('#strip [aria-pressed=true]').get_attribute('title') == 'lime.png'
    (answer,) = page.after(lambda: page.click(20, 20), 'attention')
    assert 'lime.png' in answer['command']
    page.drop(photo('gray'), 'gray.png')
    page.driver.refresh()
    page.shown('gray.png')
    assert len(page.all('#strip button')) == 4


def test_copied_is_what_is_written(page, tiny):
    page.open(tiny.url)
    page.drop(ROOT / 'demo' / 'coffee.png')
    page.see('attention')
    page.wait(lambda: page.answer('attention'))
    page.quiet()
    command, copy = page.answer('attention')['command'], page.one('#attention .source button')
    clipboard = 'const done = arguments[0]; navigator.clipboard.readText().then(done, (error) => done(String(error)))'
    copy.click()
    page.wait(lambda: page.one('#status').text == 'Copied.')
    # The page writes as anybody's browser lets it; reading is what the test alone does.
    allowed = {'origin': tiny.url.rsplit('/', 2)[0], 'permissions': ['clipboardReadWrite', 'clipboardSanitizedWrite']}
    page.driver.execute_cdp_cmd('Browser.grantPermissions', allowed)
    assert page.driver.execute_async_script(clipboard) == command
    page.one('#attention .view-head .link').click()
    copy.click()
    page.wait(lambda: page.driver.execute_async_script(clipboard) != command)
    lines = page.driver.execute_async_script(clipboard)
    assert lines == page.answer('attention')['python'] and lines.startswith('import vistool as vt\n')
    page.js("navigator.clipboard.writeText = () => Promise.reject(new DOMException('', 'NotAllowedError'))")
    page.one('#attention .view-head .link').click()
    copy.click()
    page.wait(lambda: page.one('#status').text.startswith('Press Ctrl+C'))
    assert page.js('return String(getSelection())') == command
    page.keys_with_control('c')
    assert page.driver.execute_async_script(clipboard) == command


def test_rapid_clicks_end_with_the_map_of_the_last(page, tiny):
    page.open(tiny.url)
    page.drop(ROOT / 'demo' / 'astronaut.png')
    page.quiet()
    code = """
    const stage = document.querySelector('#photo-stage'), box = stage.getBoundingClientRect();
    let seed = 1;
    const next = () => { seed = (seed * 48271) % 2147483647; return seed / 2147483647; };
    for (let count = 0; count < 300; count += 1) {
      const place = { clientX: box.x + next() * box.width, clientY: box.y + next() * box.height, pointerId: 1 };
      stage.dispatchEvent(new PointerEvent('pointerdown', place));
      stage.dispatchEvent(new PointerEvent('pointerup', place));
    }
    """
    page.js('HTMLElement.prototype.setPointerCapture = () => {}')  # made-up pointers cannot be captured
    page.requests()
    page.js(code)
    page.quiet()
    assert sum('view=attention' in url for url in page.requests()) < 10  # what nobody waits for is not asked
    x, y = page.point()
    for view in ('attention', 'similarity'):
        page.see(view)
        page.wait(lambda view=view: f'{x},{y}' in (page.answer(view) or {'command': ''})['command'])
    assert not page.all('.pane .failure:not([hidden])')


@pytest.mark.parametrize(
    'data, name, said',
    [
        (b'not an image at all', 'text.png', 'text.png'),
        (photo('red')[:60], 'cut.png', 'cut.png'),
        (b'', 'empty.png', 'empty.png'),
        (60_000_000, 'huge.png', '52.4 MB'),
        (photo(0, (20_000, 20_000), '1'), 'bomb.png', '100 megapixels'),
    ],
    ids=['text', 'cut', 'empty', 'huge', 'bomb'],
)
def test_what_is_not_a_photo_is_refused_in_words(page, tiny, data, name, said):
    page.open(tiny.url)
    page.drop(ROOT / 'demo' / 'coffee.png')
    page.drop(data, name, shown=False)
    page.wait(lambda: page.one('#failure').is_displayed())
    assert said in page.one('#failure').text and 'Traceback' not in page.one('#failure').text
    assert page.one('#photo-name').text.startswith('coffee.png')  # which stays
    page.after(lambda: page.click(310, 190), 'attention')


def test_a_point_that_the_network_does_not_see_is_answered_in_words(page, tiny):
    page.open(tiny.url)
    page.drop(ROOT / 'demo' / 'coffee.png')
    assert page.one('#photo-stage .outline').get_attribute('points')  # the crop is drawn
    page.quiet()
    page.click(20, 200)
    page.wait(lambda: page.one('#attention .failure').is_displayed())
    assert 'crops it away' in page.one('#attention .failure').text
    page.after(lambda: page.click(310, 190), 'attention')
    assert not page.one('#attention .failure').is_displayed()


def test_a_point_between_tokens_is_said_to_lie_where_the_command_looks(page, tiny):
    page.open(tiny.url)
    page.drop(ROOT / 'demo' / 'coffee.png')  # the middle of its crop is a corner of four tokens
    for view in ('attention', 'patches'):
        page.see(view)
        page.wait(lambda view=view: page.answer(view))
        token = page.answer(view)['token']
        assert f'row {token["row"]}, column {token["column"]}' in page.one(f'#{view} .value').text


def test_a_killed_tab_leaves_the_server_alive(page, tiny):
    page.open(tiny.url)
    page.drop(ROOT / 'demo' / 'coffee.png')
    page.quiet()
    first = page.driver.current_window_handle
    page.driver.switch_to.new_window('tab')
    page.open(tiny.url)
    page.drop(ROOT / 'demo' / 'astronaut.png', shown=False)
    page.driver.close()  # while the network reads the photo
    page.driver.switch_to.window(first)
    page.after(lambda: page.click(310, 190), 'attention')


def test_the_page_fits_every_width_and_scheme(page, dino, tmp_path):
    page.open(dino.url)
    page.drop(ROOT / 'demo' / 'astronaut.png')
    folder = Path(os.environ.get('VISTOOL_SCREENSHOTS', tmp_path))
    try:
        for width, height in ((1920, 1080), (1400, 900), (800, 1100), (390, 844)):
            measures = {'width': width, 'height': height, 'deviceScaleFactor': 1, 'mobile': False}
            page.driver.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', measures)
            for scheme in ('light', 'dark'):
                feature = {'name': 'prefers-color-scheme', 'value': scheme}
                page.driver.execute_cdp_cmd('Emulation.setEmulatedMedia', {'features': [feature]})
                page.quiet()
                page.driver.save_screenshot(str(folder / f'{width}_{scheme}.png'))
                assert page.js('const e = document.documentElement; return e.scrollWidth - e.clientWidth') <= 0
    finally:
        page.driver.execute_cdp_cmd('Emulation.clearDeviceMetricsOverride', {})
        page.driver.execute_cdp_cmd('Emulation.setEmulatedMedia', {'features': []})


def test_everything_has_a_name_for_a_screen_reader(page, dino):
    page.open(dino.url)
    page.drop(ROOT / 'demo' / 'astronaut.png')
    code = """
    return [...document.querySelectorAll('button, input, select, summary, [role=application], [role=switch]')]
      .filter((each) => !(each.ariaLabel || each.textContent.trim() || each.labels?.length || each.title))
      .map((each) => each.outerHTML)
    """
    assert page.js(code) == []
    assert page.one('#status').get_attribute('role') == 'status'
