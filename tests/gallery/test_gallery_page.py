"""The page in a real browser: headless Chromium opens it from disk.

Needs Debian's ``chromium`` and ``chromium-driver``, and ``selenium``.
"""

from __future__ import annotations

import shutil

import pytest
from gallery_page import Page
from gallery_runs import failed, known, line, small_lines, write_run

from vistool.gallery.build import build_gallery

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def small(tmp_path_factory):
    return build_gallery(write_run(tmp_path_factory.mktemp('small') / 'run', small_lines()))[0]


@pytest.fixture(scope='module')
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp('pair')
    base = small_lines()
    base[0] = line(0, 'a_tabby', known(285, 0.5), known(281))  # ours mended it, and is surer by 0.4
    base[4] = line(4, 'e_espresso', known(967, 0.29), known(967))  # surer by 0.7
    base[2] = line(2, 'c_cup', known(968, 0.5), known(968))  # less sure by 0.2
    extra = line(8, 'only_base', known(657, 0.2))
    paths = [
        write_run(folder / 'base', [*base[:5], extra], config='base'),
        write_run(folder / 'ours', small_lines(), config='ours'),
    ]
    return build_gallery(paths[1], [paths[0]])[0]


def test_opens_from_disk_with_every_picture(page, small):
    page.open(small)
    assert page.cards() == [each['name'] for each in small_lines()]
    assert page.count() == '7 images'
    assert page.loaded()
    assert '60.0 %' in page.one('#facts').text and '3 of 5' in page.one('#facts').text
    first = page.all('.card')[1]
    assert first.find_element('css selector', '.class').text == 'Egyptian cat'
    assert 'wrong' in first.get_attribute('aria-label') and 'ground truth tabby' in first.get_attribute('aria-label')
    assert page.one('h1').text == 'small-net' and page.driver.title == 'small-net · vis_cam'


def test_images_of_one_name_open_each_by_its_own_address(page, tmp_path):
    """a/x.png and b/x.png of two runs, and a third whose name is what tells them apart."""
    lines = [
        line(0, 'x', known(281, 0.9), input='a/x.png', home='zero'),
        line(1, 'x', known(967, 0.8), input='b/x.png', home='one'),
        line(2, 'x (2)', known(657, 0.7), input='c/x.png', home='two'),
    ]
    path = build_gallery(write_run(tmp_path / 'run', lines))[0]
    page.open(path)
    opened = []
    for card in range(3):
        page.js('arguments[0].click()', page.all('.card')[card])
        page.wait(lambda: page.one('#detail').is_displayed())
        assert page.one('#detail-place').text == f'{card + 1} of 3'
        assert f'{"abc"[card]}/x.png' in page.one('#detail').text
        opened.append(page.js('return location.hash'))
        page.keys('ESCAPE')
        page.wait(lambda: not page.one('#detail').is_displayed())
    assert len(set(opened)) == 3
    for card, state in enumerate(opened):
        page.open(path, state)
        page.wait(lambda place=f'{card + 1} of 3': page.one('#detail-place').text == place)
    page.keys('ARROW_LEFT')
    page.wait(lambda: page.one('#detail-place').text == '2 of 3')
    page.keys('t')
    assert page.one('#detail-place').text == '2 of 3 · tagged'


def test_right_and_wrong_differ_by_more_than_color(page, small):
    page.open(small)
    shapes = {
        kind: page.js('return arguments[0].querySelector("path").getAttribute("d")', page.one(f'.mark.{kind}'))
        for kind in ('right', 'wrong', 'error')
    }
    assert len(set(shapes.values())) == 3
    assert page.one('.mark.wrong').get_attribute('title') == 'wrong'


def test_filters(page, small):
    page.open(small)
    shown = {key: [] for key in ('right', 'wrong', 'errors')}
    for key in shown:
        page.show(key)
        shown[key] = page.cards()
    assert shown == {
        'right': ['a_tabby', 'c_cup', 'e_espresso'],
        'wrong': ['b_tabby', 'd_cup'],
        'errors': ['g_broken'],
    }
    page.show('all')
    page.set('#query', 'tabby')
    assert page.cards() == ['a_tabby', 'b_tabby'] and page.count() == '2 of 7 images'
    assert page.one('.show-wrong b').text == '1'  # how many there are with the other filters as they are
    page.set('#scope', 'prediction')
    assert page.cards() == ['a_tabby']
    page.set('#scope', 'any')
    page.set('#query', 'cup')
    assert page.cards() == ['c_cup', 'd_cup']  # a whole class name: predicted, or the truth
    page.set('#scope', 'prediction')
    assert page.cards() == ['c_cup']  # and no measuring cup
    page.set('#query', 'cu')
    assert page.cards() == ['c_cup', 'd_cup']
    page.set('#query', '657')
    assert page.cards() == ['f_unknown']
    page.set('#query', 'nothing like this')
    assert page.cards() == [] and page.one('#none').is_displayed()
    page.one('#reset-none').click()
    assert len(page.cards()) == 7


def test_score_range_method_and_layer(page, small):
    page.open(small)
    page.set('#low', 60)
    assert page.cards() == ['a_tabby', 'b_tabby', 'd_cup', 'e_espresso']
    page.set('#high', 80)
    assert page.cards() == ['b_tabby', 'd_cup']
    page.set('#high', 10)  # the ends cannot pass each other
    assert page.one('#low').get_attribute('value') == page.one('#high').get_attribute('value') == '60'
    page.one('#reset').click()
    assert [each.text for each in page.all('#method option')] == ['all', 'GradCAM', 'LayerCAM']
    page.set('#method', 'LayerCAM')
    assert page.cards() == ['a_tabby', 'b_tabby', 'c_cup', 'd_cup']
    assert page.one('.card .map').get_attribute('src').endswith('tiles/a_tabby/2.jpg')
    page.set('#method', '')
    page.set('#layer', 'backbone.stage3')
    assert page.cards() == ['f_unknown']
    assert page.one('.card .map').get_attribute('src').endswith('tiles/f_unknown/2.jpg')


def test_sorting(page, small):
    page.open(small)
    page.set('#sort', 'score')
    by_score = ['e_espresso', 'a_tabby', 'd_cup', 'b_tabby', 'c_cup', 'f_unknown', 'g_broken']
    assert page.cards() == by_score
    page.one('#direction').click()
    assert page.cards() == [*by_score[-2::-1], 'g_broken']  # what has no score comes last, either way
    page.set('#sort', 'label')
    assert page.cards() == ['c_cup', 'd_cup', 'e_espresso', 'a_tabby', 'b_tabby', 'f_unknown', 'g_broken']
    page.set('#sort', 'name')
    page.one('#direction').click()
    assert page.cards() == sorted(page.cards(), reverse=True)
    assert 'uncertainty' not in [each.get_attribute('value') for each in page.all('#sort option')]


def test_uncertainty_sorts_where_it_is_given(page, tmp_path):
    lines = [line(i, f'{i}', known(281, 0.5), uncertainty=u) for i, u in enumerate([0.2, 0.9, 0.4])]
    page.open(build_gallery(write_run(tmp_path, lines))[0])
    page.set('#sort', 'uncertainty')
    assert page.cards() == ['1', '2', '0']


def with_metrics(lines, values):
    """Lines whose first map has these metrics, and whose second map has one minus them."""
    for each, (deletion, energy) in zip(lines, values, strict=True):
        for place, tile in enumerate(each['tiles'][1:]):
            numbers = [abs(place - deletion), None if energy is None else abs(place - energy)]
            tile['metrics'] = [
                {'name': 'deletion', 'short': 'del', 'better': 'lower', 'value': numbers[0]},
                {'name': 'energy', 'short': 'energy', 'better': 'higher', 'value': numbers[1]},
            ]
    return lines


def test_metrics_of_the_map_that_is_shown_sort_and_stand_on_the_cards(page, tmp_path):
    both = {'methods': ('GradCAM', 'LayerCAM')}
    lines = [line(i, f'{i}', known(281, 0.5), **both) for i in range(3)]
    lines = with_metrics(lines, [(0.2, 0.3), (0.1, None), (0.4, 0.8)])
    page.open(build_gallery(write_run(tmp_path, [*lines, failed(3, '3', 'cut off')]))[0])
    assert page.cards() == ['0', '1', '2', '3']
    assert [each.text for each in page.all('.card .numbers')] == [
        'del 0.20 ↓ energy 0.30 ↑', 'del 0.10 ↓ energy – ↑', 'del 0.40 ↓ energy 0.80 ↑', ''
    ]  # fmt: skip
    page.set('#sort', 'metric:deletion')
    assert page.cards() == ['1', '0', '2', '3']  # the best first; lower is better
    page.set('#sort', 'metric:energy')
    assert page.cards() == ['2', '0', '1', '3']  # what has no value comes last
    assert page.one('.card .numbers b').text == 'energy 0.80 ↑'
    page.set('#method', 'LayerCAM')
    assert page.cards() == ['0', '2', '1']
    assert page.one('.card .numbers').text == 'energy 0.70 ↑ del 0.80 ↓'
    page.one('.card').click()
    assert [each.text for each in page.all('figcaption .number')] == ['del 0.80 ↓', 'energy 0.70 ↑']


def test_photo_and_overlay_flip_in_place(page, small):
    page.open(small)
    box = 'const b = document.querySelector(arguments[0]).getBoundingClientRect(); return [b.x, b.y, b.width, b.height]'
    assert page.visible('.card .map')
    assert page.js(box, '.card .map') == page.js(box, '.card .photo')
    page.one('#flip').click()
    assert not page.visible('.card .map') and page.visible('.card .photo')
    assert page.one('#flip').get_attribute('aria-checked') == 'false'
    page.one('#flip').click()
    assert page.visible('.card .map')
    from selenium.webdriver import ActionChains

    held = ActionChains(page.driver).click_and_hold(page.one('#flip'))
    held.perform()
    page.wait(lambda: not page.visible('.card .map'))
    ActionChains(page.driver).release().perform()
    page.wait(lambda: page.visible('.card .map'))


def test_keys(page, small):
    page.open(small)
    page.keys('ARROW_RIGHT', 'ARROW_RIGHT', 'ARROW_RIGHT')
    assert page.focused() == 'c_cup'  # the first press enters the grid
    page.keys('END')
    assert page.focused() == 'g_broken'
    page.keys('HOME', 'ARROW_DOWN')
    columns = page.js(
        "return new Set([...document.querySelectorAll('.cell')].map(c => c.getBoundingClientRect().x)).size"
    )
    assert page.focused() == small_lines()[columns]['name']
    page.keys('HOME', 'SPACE')
    assert not page.visible('.card .map') and not page.one('#detail').is_displayed()
    page.keys('SPACE')
    assert page.visible('.card .map')
    page.keys('ENTER')
    assert page.one('#detail').is_displayed() and page.one('#detail-title').text == 'a_tabby'
    page.keys('ARROW_RIGHT')
    assert page.one('#detail-title').text == 'b_tabby' and page.one('#detail-place').text == '2 of 7'
    assert [each.get_attribute('aria-pressed') for each in page.all('#strip button')] == ['true', 'false']
    page.keys('ARROW_DOWN')
    assert [each.get_attribute('aria-pressed') for each in page.all('#strip button')] == ['false', 'true']
    assert page.one('.frame .map').get_attribute('src').endswith('tiles/b_tabby/2.jpg')
    page.keys('SPACE')
    assert not page.visible('.frame .map')
    page.keys('SPACE')
    assert page.visible('.frame .map')
    page.keys('ESCAPE')
    assert not page.one('#detail').is_displayed()
    page.wait(lambda: page.focused() == 'b_tabby')
    page.keys('?')
    assert page.one('#keys').is_displayed()
    page.keys('ESCAPE')
    assert not page.one('#keys').is_displayed()
    page.keys('/')
    assert page.focused() == 'query'
    page.keys(*'e_es')
    assert page.cards() == ['e_espresso']
    page.keys('ENTER')
    assert page.focused() == 'e_espresso'
    page.keys('/', 'ESCAPE')
    assert len(page.cards()) == 7


def test_the_focus_is_seen(page, small):
    page.open(small)
    page.keys('ARROW_RIGHT')
    outline = page.js('const s = getComputedStyle(document.activeElement); return [s.outlineStyle, s.outlineWidth]')
    assert outline == ['solid', '3px']


def test_enlarged_photo_against_overlay(page, small):
    page.open(small, '#open=a_tabby')
    assert page.one('#detail').is_displayed()
    box = "const b = document.querySelector('.frame').getBoundingClientRect(); return [b.width, b.height]"
    frame = page.js(box)
    assert frame[0] / frame[1] == pytest.approx(80 / 60, rel=0.02)
    page.keys('s')
    assert page.js(box) == frame  # nothing jumps
    page.set('#wipe', 25)
    clip = "return getComputedStyle(document.querySelector('.frame .map')).clipPath"
    assert page.js(clip) == 'inset(0px 0px 0px 25%)'
    from selenium.webdriver import ActionChains

    element = page.one('.frame')
    ActionChains(page.driver).move_to_element(element).click_and_hold().move_by_offset(
        int(frame[0] / 4), 0
    ).release().perform()
    assert float(page.js(clip).split()[-1].rstrip('%)')) == pytest.approx(75, abs=1)
    link = page.one('.files a')
    assert link.text == 'a_tabby.png' and link.get_attribute('href').endswith('/run/a_tabby.png')
    page.all('.prediction .link')[0].click()
    assert not page.one('#detail').is_displayed()
    assert page.cards() == ['a_tabby'] and page.one('#scope').get_attribute('value') == 'prediction'


def test_the_address_keeps_the_state(page, small):
    page.open(small)
    page.show('wrong')
    page.set('#sort', 'score')
    page.set('#low', 70)
    page.one('#flip').click()
    page.js("document.querySelector('.card').click()")
    page.keys('ARROW_DOWN')
    address = page.driver.current_url
    again = page.open(small, '#' + address.split('#')[1])
    assert again.cards() == ['d_cup']
    assert again.one('#detail-title').text == 'd_cup'
    assert again.all('#strip button')[1].get_attribute('aria-pressed') == 'true'
    again.keys('ESCAPE')
    assert again.js('return document.body.dataset.view') == 'photo'
    assert again.one('#sort').get_attribute('value') == 'score'
    again.one('#reset').click()
    page.js("location.hash = '#show=errors'")
    page.wait(lambda: page.cards() == ['g_broken'])


@pytest.mark.parametrize(
    'state', ['#show=x&sort=y&min=a&max=-3&size=q&method=none&open=nobody&map=99', '#%%%', '#open=a_tabby&map=-7']
)
def test_an_address_that_makes_no_sense_does_no_harm(page, small, state):
    page.open(small, state)
    assert len(page.cards()) == 7


def test_two_runs_side_by_side(page, pair):
    page.open(pair)
    assert page.one('h1').text == 'base | ours' and page.count() == '8 images'
    assert [each.text for each in page.all('.card .run')[:2]] == ['base', 'ours']
    assert page.loaded()
    card = page.all('.card')[0]
    assert [each.text for each in card.find_elements('css selector', '.class')] == ['Egyptian cat', 'tabby']
    # The runs predict different classes, and the first one does not say how likely the true one is.
    assert card.find_elements('css selector', '.change') == []
    assert page.all('.card')[4].find_element('css selector', '.change').text == 'Δ +0.70'
    assert card.find_element('css selector', '.tag').text == 'disagree'
    page.show('disagree')
    assert page.cards() == ['a_tabby']
    page.show('gained')
    assert page.cards() == ['a_tabby']
    page.show('lost')
    assert page.cards() == []
    page.show('all')
    page.set('#sort', 'difference')
    assert page.cards()[:2] == ['e_espresso', 'c_cup']
    page.set('#sort', 'gain')
    page.one('#direction').click()
    assert page.cards()[0] == 'c_cup'
    page.set('#query', 'only_base')
    assert 'not in this run' in page.all('.card .pane')[1].text
    page.js("document.querySelector('.card').click()")
    assert len(page.all('.stage')) == 2 and 'not in this run' in page.all('.stage')[1].text


def test_two_runs_enlarged(page, pair):
    page.open(pair, '#open=a_tabby&map=1')
    sources = [each.get_attribute('src').rpartition('gallery/')[2] for each in page.all('.frame .map')]
    assert sources == ['compared/1/tiles/a_tabby/1.jpg', 'tiles/a_tabby/2.jpg']  # base has GradCAM alone
    assert [each.text for each in page.all('.verdict')] == ['wrong', 'right']
    page.keys('SPACE')
    hidden = page.js("return [...document.querySelectorAll('.frame .map')].map(m => getComputedStyle(m).visibility)")
    assert hidden == ['hidden', 'hidden']


EVIL = [
    '</script><script>window.hacked=1</script>',
    '<img src=x onerror="window.hacked=1">',
    '"><svg onload=window.hacked=1>',
    "';window.hacked=1;//",
    '&lt;b&gt; &amp; "quotes" \'single\' käse 日本 \u202e\u2028',
    'javascript:window.hacked=1',
]


def test_names_are_text_and_nothing_else(page, tmp_path):
    names = dict(enumerate(EVIL))
    lines = []
    for i, evil in enumerate(EVIL):
        home = f'{i} #1 100% käse?&"<b>\'日本'
        made = line(i, f'{i} {evil}', known(i, 0.5, names), known((i + 1) % len(EVIL), None, names), home=home)
        made['files'] = [{'name': f'{home}.png', 'bytes': 1, 'crc32': '0'}]
        for tile in made['tiles'][1:]:
            tile.update(row=evil, column=evil, method=evil, layer=evil, note=evil)
        lines.append({**made, 'input': evil, 'error': evil if i == 0 else None})
    facts = {
        'config': EVIL[0],
        'tool': EVIL[1],
        'checkpoint': EVIL[2],
        'command': EVIL[0],
        'settings': {EVIL[1]: EVIL[2]},
    }
    folder = write_run(tmp_path / 'a #1 %20 käse <b>', lines, **facts)
    page.open(build_gallery(folder)[0])
    assert page.loaded()
    assert page.cards() == [f'{i} {evil}' for i, evil in enumerate(EVIL)]
    predicted = page.js("return [...document.querySelectorAll('.card .class')].map(c => c.textContent)")
    assert predicted == EVIL
    assert page.one('h1').get_attribute('textContent') == EVIL[0]
    page.one('#about summary').click()
    for name in lines:
        page.js("location.hash = '#' + new URLSearchParams({open: arguments[0]})", name['name'])
        page.wait(lambda name=name: page.one('#detail-title').get_attribute('textContent') == name['name'])
        assert page.wait(lambda: page.js("return document.querySelector('.frame .map').naturalWidth")) == 80
    link = page.js("return document.querySelector('.files a').href")
    page.keys('ESCAPE')
    page.open(folder / lines[-1]['files'][0]['name'])
    assert page.driver.current_url == link and page.js("return document.querySelector('img').naturalWidth") == 80
    page.open(folder / 'gallery' / 'index.html')
    assert page.js('return window.hacked') is None
    assert page.js("return document.querySelectorAll('script').length") == 2


def test_a_run_without_predictions_shows_its_files(page, tmp_path):
    lines = [line(i, f'image_{i}', methods=('mean', 'head 1', 'head 2')) for i in range(3)]
    page.open(build_gallery(write_run(tmp_path, lines, tool='vis_attention'))[0])
    assert [each.text for each in page.all('.card .class')] == ['image_0', 'image_1', 'image_2']
    assert not page.one('#range').is_displayed()
    assert [each.get_attribute('value') for each in page.all('#shows input')] == ['all']
    page.set('#method', 'head 2')
    assert page.one('.card .map').get_attribute('src').endswith('image_0/3.jpg')


def test_the_map_picked_is_the_map_enlarged(page, tmp_path):
    stages = tuple(f'stage{i}' for i in range(4))  # one reduction at several layers
    page.open(build_gallery(write_run(tmp_path, [line(0, 'x', methods=('mean',), layers=stages)]))[0], '#open=x&map=2')
    for place in (2, 0, 3):
        page.all('#strip button')[place].click()
        assert page.one('.frame .map').get_attribute('src').endswith(f'x/{place + 1}.jpg')
        assert f'stage{place}' in page.one('figcaption').text


def test_missing_data_is_said(chromium, small, tmp_path):
    lonely = tmp_path / 'index.html'
    shutil.copy(small, lonely)
    page = Page(chromium).open(lonely)
    assert page.one('h1').text == 'data.js is missing'
    chromium.get_log('browser')  # the browser itself says that the file is not there


@pytest.fixture(params=[360, 700, 1000])
def narrow(chromium, request):
    measures = {'width': request.param, 'height': 800, 'deviceScaleFactor': 1, 'mobile': False}
    chromium.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', measures)
    yield request.param
    chromium.execute_cdp_cmd('Emulation.clearDeviceMetricsOverride', {})


def test_a_narrow_window_has_no_sideways_scroll(page, small, pair, narrow):
    for path, state in ((small, ''), (pair, ''), (pair, '#open=a_tabby')):
        page.open(path, state)
        assert page.js('return innerWidth') == narrow
        code = 'const e = arguments[0]; return e.scrollWidth - e.clientWidth'
        assert page.js(code, page.one('html')) <= 0
        assert page.js(code, page.one('#detail')) <= 0


@pytest.fixture(scope='module')
def large(tmp_path_factory):
    """5,000 images of 200 classes, in folders of pictures that they share."""
    names = {i: f'class {i}' for i in range(200)}
    lines = []
    for i in range(5000):
        guess = i * 7 % 200 if i % 5 else (i * 7 + 1) % 200
        prediction = known(guess, round((i * 37 % 1000) / 1000, 3), names)
        methods = ('GradCAM', 'LayerCAM') if i % 2 else ('GradCAM',)
        lines.append(
            line(i, f'{i:06d}', prediction, known(i * 7 % 200, None, names), methods, home=f'{i % 50}', files=[])
        )
    folder = write_run(tmp_path_factory.mktemp('large') / 'run', lines)
    return build_gallery(folder)[0], lines


def test_five_thousand_images_are_few_elements(page, large):
    path, _ = large
    page.open(path)
    assert page.count() == '5,000 images'
    most = 150
    assert 0 < len(page.cards()) < most
    assert page.js("return document.querySelectorAll('*').length") < 4000
    pictures = {url for url in page.read_log() if url.endswith('.jpg')}
    assert len(page.requests) < 3 * most and pictures
    page.keys('ARROW_RIGHT', 'END')
    assert page.focused() == '004999' and len(page.cards()) < most
    page.keys('HOME')
    assert page.focused() == '000000' and len(page.cards()) < most
    for place in (0.5, 0.1, 0.9):
        page.js('scrollTo(0, arguments[0] * document.documentElement.scrollHeight)', place)
        middle = int(place * 5000)
        page.wait(lambda middle=middle: any(abs(int(name) - middle) < 100 for name in page.cards()))
        assert len(page.cards()) < most and page.cards() == sorted(page.cards())
    assert page.loaded()


def test_five_thousand_images_filtered_and_sorted(page, large):
    path, lines = large
    page.open(path)
    assert page.js('return innerWidth') > 1200
    wrong = [each for each in lines if each['label']['id'] != each['prediction']['id']]
    page.show('wrong')
    assert page.count() == f'{len(wrong):,} of 5,000 images' == '1,000 of 5,000 images'
    assert page.one('.show-right b').text == '4,000'
    page.set('#query', 'class 7')
    page.set('#scope', 'label')
    page.show('all')
    mine = [each for each in lines if each['label']['name'] == 'class 7']
    assert page.cards() == [each['name'] for each in mine]
    page.set('#sort', 'score')
    by_score = sorted(mine, key=lambda each: (-each['prediction']['score'], each['index']))
    assert page.cards() == [each['name'] for each in by_score]
    page.one('#reset').click()
    page.set('#method', 'LayerCAM')
    assert page.count() == '2,500 of 5,000 images'
    page.set('#low', 90)
    sure = [each for each in lines if len(each['methods']) == 2 and each['prediction']['score'] >= 0.9]
    assert page.count() == f'{len(sure)} of 5,000 images'
