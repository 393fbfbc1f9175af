"""The views of the page filter each other: map, matrix and histograms, in headless Chromium."""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
import shlex
import subprocess
from pathlib import Path

import pytest
from gallery_runs import known, line, write_run

from vistool.commands.vis_cam import main
from vistool.gallery.build import build_gallery
from vistool.gallery.data import as_script, page_data
from vistool.gallery.runs import FinishedRun

pytestmark = pytest.mark.slow

KINDS = {0: 'cat', 1: 'dog', 2: 'fox', 3: 'owl'}


def animals():
    """Forty images: ten of each class around a corner of a square; every fifth is predicted as the next class."""
    lines = []
    for i in range(40):
        label, wrong = i // 10, i % 5 == 4
        made = line(i, f'{i:02d}', known((label + wrong) % 4, 0.02 + i / 50, KINDS), known(label, None, KINDS))
        made['points'] = [[10 * (label % 2) + math.cos(i), 10 * (label // 2) + math.sin(i)]]
        for tile in made['tiles'][1:]:
            tile['metrics'] = [{'name': 'energy', 'short': 'energy', 'better': 'higher', 'value': (i % 10) / 10 + 0.05}]
        lines.append(made)
    return lines


MAP = {'embeddings': [{'name': 'net', 'note': 't-SNE, perplexity 5'}]}


@pytest.fixture(scope='module')
def views(tmp_path_factory):
    return build_gallery(write_run(tmp_path_factory.mktemp('views') / 'run', animals(), **MAP))[0]


def names(places):
    return [f'{place:02d}' for place in places]


def wait_for(page, expected):
    page.wait(lambda: page.count() == expected)


def actions(page):
    from selenium.webdriver import ActionChains

    return ActionChains(page.driver, duration=20)


def drag(page, selector, *offsets):
    """Press at the first offset from the element's upper left corner, pass the others, release."""
    element = page.one(selector)
    page.js('arguments[0].scrollIntoView({block: "center"})', element)
    size = element.size
    moves = [
        (round(x * size['width'] - size['width'] / 2), round(y * size['height'] - size['height'] / 2))
        for x, y in offsets
    ]
    chain = actions(page).move_to_element_with_offset(element, *moves[0]).click_and_hold()
    for before, after in itertools.pairwise(moves):
        chain.move_by_offset(after[0] - before[0], after[1] - before[1])
    chain.release().perform()


def click_cell(page, row, column, count=4):
    """A click on a cell of the matrix; None: on the name of a row or column."""
    canvas = page.one('#matrix')
    page.js('arguments[0].scrollIntoView({block: "center"})', canvas)
    width, height = canvas.size['width'], canvas.size['height']
    side = width - 92
    x = 40 if column is None else 84 + side * (column + 0.5) / count
    y = 40 if row is None else 82 + side * (row + 0.5) / count
    actions(page).move_to_element_with_offset(canvas, round(x - width / 2), round(y - height / 2)).click().perform()


def chips(page):
    return [' '.join(each.text.split('\n')) for each in page.all('#chips .chip')]


def test_a_brush_on_the_map_filters_the_images_and_the_other_views(page, views):
    page.open(views)
    assert page.one('#map-note').text == 't-SNE, perplexity 5'
    drag(page, '#map', (0.52, 0.02), (0.52, 0.48), (0.98, 0.48), (0.98, 0.02))  # y points up: the class of (1, 1)
    wait_for(page, '10 of 40 images')
    assert page.cards() == names(range(30, 40)) and chips(page) == ['Map brushed']
    assert [each.text for each in page.all('#pair-list .pair')] == ['owl\n→\ncat\n2']
    assert [page.one(f'.show-{key} b').text for key in ('all', 'right', 'wrong')] == ['10', '8', '2']
    page.one('#chips .chip').click()
    wait_for(page, '40 images')
    assert not page.one('#chips').is_displayed()


def test_the_map_moves_zooms_and_opens_an_image(page, views):
    page.open(views)
    page.one('#tools input[value=pan]').find_element('xpath', '..').click()
    before = page.js("return document.getElementById('map').toDataURL()")
    drag(page, '#map', (0.5, 0.5), (0.7, 0.6))
    page.wait(lambda: page.js("return document.getElementById('map').toDataURL()") != before)
    assert page.count() == '40 images'
    page.one('#map-all').click()
    page.js("document.getElementById('map').focus()")
    page.keys('+', '+', 'ARROW_LEFT', '0')
    page.wait(lambda: page.js("return document.getElementById('map').toDataURL()") == before)
    page.keys('ENTER')  # selects what is in view
    assert page.count() == '40 images' and chips(page) == ['Map brushed']
    page.keys('ESCAPE')
    assert chips(page) == []
    place = page.js("""
        const {x, y} = document.getElementById('map').getBoundingClientRect(), map = document.getElementById('map');
        for (let py = 4; py < map.clientHeight; py += 2) for (let px = 4; px < map.clientWidth; px += 2) {
          const event = {clientX: x + px, clientY: y + py, bubbles: true};
          map.dispatchEvent(new PointerEvent('pointermove', event));
          if (!document.getElementById('map-tip').hidden) return [px, py];
        }""")
    assert place and 'truth' in page.one('#map-tip').text
    canvas = page.one('#map')
    offset = place[0] - canvas.size['width'] / 2, place[1] - canvas.size['height'] / 2
    actions(page).move_to_element_with_offset(canvas, *map(round, offset)).click().perform()
    assert page.one('#detail').is_displayed()


def test_a_cell_of_the_matrix_shows_its_images(page, views):
    page.open(views)
    click_cell(page, 0, 1)
    assert page.cards() == ['04', '09'] and chips(page) == ['Truth cat', 'Prediction dog']
    click_cell(page, 0, 1)  # once more takes it back
    assert page.count() == '40 images'
    click_cell(page, 1, None)
    assert page.cards() == names(range(10, 20))
    click_cell(page, None, 3)
    assert page.cards() == names([24, 29, 30, 31, 32, 33, 35, 36, 37, 38])
    page.one('#share').click()
    assert page.one('#share').get_attribute('aria-pressed') == 'true'
    page.one('#reset').click()
    page.js("document.getElementById('matrix').focus()")
    page.keys('ARROW_DOWN', 'ARROW_DOWN', 'ARROW_RIGHT')
    assert page.one('#matrix-said').text == 'truth dog, prediction dog: 8 images, 80.0 % of the row'
    page.keys('ENTER')
    assert page.cards() == names([10, 11, 12, 13, 15, 16, 17, 18])
    page.all('#pair-list .pair')[0].click()
    assert page.cards() == ['04', '09']


def test_a_range_is_dragged_out_of_a_histogram(page, views):
    page.open(views)
    drag(page, '#range-1 .histogram', (0.6, 0.5), (0.995, 0.5))
    page.wait(lambda: page.count() == '16 of 40 images')
    assert page.cards() == names(i for i in range(40) if i % 10 >= 6)
    assert chips(page)[0].startswith('Energy 0.60 – ')
    drag(page, '#histogram', (0.0, 0.5), (0.3, 0.5))
    page.wait(lambda: page.count() == '4 of 40 images')
    assert page.cards() == ['06', '07', '08', '09']
    page.one('#range-1 .histogram').click()  # a click takes the range back
    page.wait(lambda: page.count() == '15 of 40 images')


def test_the_address_keeps_every_filter_and_the_back_button_takes_the_last_one_back(page, views):
    page.open(views)
    click_cell(page, 0, None)
    drag(page, '#range-1 .histogram', (0.0, 0.5), (0.5, 0.5))
    page.wait(lambda: page.count() == '5 of 40 images')
    drag(page, '#map', (0.02, 0.52), (0.02, 0.98), (0.48, 0.98), (0.48, 0.52))
    page.wait(lambda: len(chips(page)) == 3)
    shown, said, address = page.cards(), chips(page), page.driver.current_url.split('#')[1]
    again = page.open(views, f'#{address}')
    assert (again.cards(), chips(again)) == (shown, said)
    again.one('#share').click()  # not a step of the history
    again.show('right')
    assert len(chips(again)) == 4
    again.driver.back()
    again.wait(lambda: chips(again) == said)
    again.open(views, '#brush=1_2&row=none&in:energy=5..x&axes=y&tab=q&kind=tp&object=cat&on=7&color=z')
    assert again.count() == '40 images' and chips(again) == []


def text_of(page, selector):
    return page.one(selector).get_attribute('value')


def test_the_copied_command_runs_and_draws_the_selection(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    photos, config = Path(__file__).parents[2] / 'demo/photos', 'tiny.py'
    (tmp_path / 'my photos').mkdir()
    for number, name in enumerate(("a'b.jpg", 'c d.jpg', '#e.jpg')):
        source = sorted(photos.iterdir())[number % len(list(photos.iterdir()))]
        (tmp_path / 'my photos' / name).write_bytes(source.read_bytes())
    (tmp_path / config).write_text(TINY)
    assert (
        main(['my photos', config, 'none', '--method', 'GradCAM', '-o', 'out/all', '--gallery', '--max-samples', '9'])
        == 0
    )
    page.open(tmp_path / 'out/all/gallery/index.html')
    page.driver.execute_cdp_cmd(
        'Browser.grantPermissions', {'permissions': ['clipboardReadWrite', 'clipboardSanitizedWrite']}
    )
    page.set('#query', '.jpg')
    page.set('#scope', 'file')
    page.set('#query', 'b')
    assert page.count() == '1 of 3 images'
    page.one('#command').click()
    page.one('#copy-command').click()
    page.wait(lambda: page.one('#copied').text == 'The command is on the clipboard.')
    command = text_of(page, '#command-text')
    assert command.startswith(f'cd {shlex.quote(str(tmp_path))}\n') and '--max-samples' not in command
    assert text_of(page, '#list-text') == "my photos/a'b.jpg\n"
    code, folder = run_as_copied(command, tmp_path)
    assert code == 0 and [path.stem.split('_')[0] for path in folder.glob('*.png')] == ["a'b"]
    page.one('#commands-close').click()
    page.one('#reset').click()
    page.one('#command').click()
    code, folder = run_as_copied(text_of(page, '#command-text'), tmp_path)
    assert code == 0 and len(list(folder.glob('*.png'))) == 3


def run_as_copied(command, folder):
    """Runs the copied lines in a shell in which vis_cam is this process: its exit code, and where it wrote."""
    script = f'vis_cam() {{ pwd > {folder}/where; printf "%s\\0" "$@" > {folder}/words; }}\n{command}\n'
    subprocess.run(['bash', '-eu', '-c', script], cwd='/', check=True)
    assert (folder / 'where').read_text().strip() == str(folder)
    words = (folder / 'words').read_bytes().decode().split('\0')[:-1]
    return main([*words, '--overwrite']), folder / 'selection'


TINY = """
model = dict(type='ImageClassifier', backbone=dict(type='ResNet', depth=18, base_channels=4, stem_channels=4),
    neck=dict(type='GlobalAveragePooling'), head=dict(type='LinearClsHead', num_classes=3, in_channels=32),
    data_preprocessor=dict(mean=[120, 120, 120], std=[60, 60, 60], to_rgb=True))
pipeline = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(64, 64)), dict(type='PackInputs')]
test_dataloader = dict(batch_size=4, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='CustomDataset', data_root={data!r}, pipeline=pipeline, classes=['espresso', 'missile', 'tabby']))
default_scope = 'mmpretrain'
""".replace('{data!r}', repr(str(Path(__file__).parents[2] / 'demo/dataset')))


def test_a_selection_of_a_dataset_is_given_by_its_indices(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'tiny.py').write_text(TINY)
    assert main(['@test', 'tiny.py', 'none', '-o', 'out', '--gallery', '--per-class', '4', '--seed', '1']) == 0
    page.open(tmp_path / 'out/gallery/index.html')
    page.set('#query', 'tabby')
    page.set('#scope', 'label')
    assert page.count() == '4 of 12 images'
    page.one('#command').click()
    code, folder = run_as_copied(text_of(page, '#command-text'), tmp_path)
    lines = [json.loads(text) for text in (folder / 'manifest.jsonl').read_text().splitlines()]
    assert code == 0 and [each['label']['name'] for each in lines] == ['tabby'] * 4
    wanted = [json.loads(text) for text in (tmp_path / 'out/manifest.jsonl').read_text().splitlines()]
    assert [each['index'] for each in lines] == [each['index'] for each in wanted if each['label']['name'] == 'tabby']


@pytest.mark.parametrize('words', [None, ['rm', None], ['vis_cam', 'a\nb']])
def test_a_command_of_a_foreign_run_is_not_offered(page, tmp_path, words):
    lines = animals()[:3]
    lines[0]['input'], lines[1]['input'] = 'a\nEND\ntouch /tmp/no', '#x.jpg'
    page.open(build_gallery(write_run(tmp_path, lines, again=words and {'words': words, 'images': 'x'}))[0])
    page.one('#command').click()
    assert not page.one('#command-text').is_displayed()
    assert text_of(page, '#list-text') == './#x.jpg\nphotos/02.jpg\n'
    assert '1 of the images has no path and is left out' in page.one('#command-note').text


def test_the_table_of_a_selection(page, views, tmp_path):
    page.driver.execute_cdp_cmd('Page.setDownloadBehavior', {'behavior': 'allow', 'downloadPath': str(tmp_path)})
    page.open(views, '#show=wrong')
    page.one('#table').click()
    page.wait(lambda: (tmp_path / 'selection.csv').exists())
    rows = list(csv.DictReader(io.StringIO((tmp_path / 'selection.csv').read_text())))
    assert [row['name'] for row in rows] == names(range(4, 40, 5)) and {row['verdict'] for row in rows} == {'wrong'}
    first = rows[0]
    assert (first['index'], first['path'], first['label'], first['prediction']) == ('4', 'photos/04.jpg', 'cat', 'dog')
    assert float(first['energy']) == 0.45 and float(first['x']) == pytest.approx(math.cos(4), abs=1e-4)


def test_two_runs_and_a_compared_model(page, tmp_path):
    base, ours = animals(), animals()
    for each in base:
        each['prediction'] = known((each['index'] // 10 + 1) % 4, 0.5, KINDS)
    for each in ours:
        each['compared'] = [{'name': 'small net', 'prediction': known(each['index'] // 10, 0.7, KINDS)}]
    folder = write_run(tmp_path / 'ours', ours, config='ours', **MAP)
    page.open(build_gallery(folder, [write_run(tmp_path / 'base', base, config='base')])[0])
    assert page.one('h1').text == 'base | small net | ours'
    assert '20.0 %' in page.all('.of-run')[-1].text and '32 flipped' in page.all('.of-run')[-1].text
    assert [each.text for each in page.all('.card')[0].find_elements('css selector', '.run')] == ['base', 'ours']
    assert page.one('.card .other').text.split('\n')[0].startswith('small net')
    options = [each.text for each in page.all('#axes option')]
    assert options == ['truth and ours', 'truth and base', 'base and ours', 'truth and small net', 'small net and ours']
    page.set('#axes', 'runs 0')
    click_cell(page, 1, 0)
    assert page.cards() == names([0, 1, 2, 3, 5, 6, 7, 8]) and chips(page) == ['base dog', 'ours cat']
    page.one('#reset').click()
    page.show('gained')
    assert page.count() == '32 of 40 images'
    page.show('lost')
    assert page.count() == '0 of 40 images'


def test_scores_have_a_difference_where_they_are_of_one_class(page, tmp_path):
    base, ours = ([line(i, str(i), known(1, 0.5, KINDS), known(0, None, KINDS)) for i in range(3)] for _ in range(2))
    base[0]['targets'], ours[0]['targets'] = ([{**known(0, score, KINDS)}] for score in (0.3, 0.1))  # the true class
    ours[1]['prediction'] = known(1, 0.75, KINDS)  # the class that both predict
    ours[2]['prediction'] = known(2, 0.75, KINDS)
    folder = write_run(tmp_path / 'wrong', ours, config='wrong')
    page.open(build_gallery(folder, [write_run(tmp_path / 'base', base, config='base')])[0])
    found = [each.find_elements('css selector', '.change') for each in page.all('.card')]
    assert [[each.text for each in each] for each in found] == [['Δ −0.20'], ['Δ +0.25'], []]
    assert page.one('.show-right').text == 'Right in "wrong" 0'


def test_tagged_images_are_a_selection(page, views):
    page.open(views)
    page.keys('ARROW_RIGHT', 't', 'ARROW_RIGHT', 't', 'ARROW_RIGHT', 't', 't', 'ARROW_RIGHT', 't')
    assert page.one('.show-tagged b').text == '3' and page.focused() == '03'
    assert 'tagged=0-1.3' in page.driver.current_url
    page.show('tagged')
    assert page.cards() == ['00', '01', '03'] and chips(page) == ['Show tagged']
    again = page.open(views, f'#{page.driver.current_url.split("#")[1]}')
    assert again.cards() == ['00', '01', '03']
    for _ in range(3):
        page.js('arguments[0].click()', page.one('.pick input'))
    assert page.count() == '40 images' and page.all('.show-tagged') == []


def test_objects_are_filtered_by_what_became_of_them(page, tmp_path):
    lines = animals()[:6]
    found = [('true positive', 0, 0.9, 0.8), ('false positive', 1, 0.6, 0.2), ('miss', 1, None, 0.1)]
    for place, each in enumerate(lines):
        each['instances'] = [
            {'kind': kind, 'id': number, 'name': KINDS[number], 'score': score, 'iou': iou}
            for kind, number, score, iou in found[: place // 2 + 1]
        ]
    page.open(build_gallery(write_run(tmp_path, lines))[0])
    assert [each.text for each in page.all('#kinds label')] == [
        'All 12', 'True positives 6', 'False positives 4', 'Misses 2'
    ]  # fmt: skip
    page.js('arguments[0].click()', page.one('#kinds input[value=miss]'))
    assert page.cards() == ['04', '05'] and chips(page) == ['Objects misses']
    page.js('arguments[0].click()', page.one('#kinds input[value=fp]'))
    page.set('#object', 'dog')
    assert page.count() == '4 of 6 images'
    page.set('#object', 'cat')
    assert page.count() == '0 of 6 images'  # the class and the kind are asked of one object
    page.one('#reset').click()
    page.js("document.querySelector('.card').click()")
    assert 'true positive' in page.one('.objects').text


NAMED = """
    const text = (id) => (document.getElementById(id) || {}).textContent || '';
    const shown = (node) => node.getClientRects().length && getComputedStyle(node).visibility !== 'hidden';
    const name = (node) => [
      node.getAttribute('aria-label'), node.textContent, node.title,
      ...[...(node.labels || [])].map((each) => each.textContent),
      ...(node.getAttribute('aria-labelledby') || '').split(' ').map(text),
    ].some((each) => each && each.trim());
    return [...document.querySelectorAll('button, a[href], input, select, textarea, canvas, dialog, [role]')]
      .filter((node) => shown(node) && !name(node) && node.getAttribute('role') !== 'status')
      .map((node) => node.outerHTML);
"""
POINTED = """
    const keys = ['for', 'aria-labelledby', 'aria-describedby', 'aria-controls'];
    const all = [...document.querySelectorAll('*')];
    const ids = all.map((node) => node.id).filter(Boolean);
    const parts = (node) => keys.flatMap((key) => (node.getAttribute(key) || '').split(' '));
    const pointed = all.flatMap(parts).filter(Boolean);
    return [ids.filter((id, place) => ids.indexOf(id) !== place), pointed.filter((id) => !ids.includes(id)),
      all.filter((node) => node.tabIndex > 0).length];
"""


def test_every_control_has_a_name_and_the_keyboard_reaches_it_in_order(page, views):
    page.open(views, '#show=wrong')
    assert page.js(NAMED) == [] and page.js(POINTED) == [[], [], 0]
    reached = []
    for _ in range(40):
        page.keys('TAB')
        reached.append(page.js('return document.activeElement.id || document.activeElement.className'))
        if reached[-1] == 'card':
            break
    wanted = ['skip', 'query', 'views-switch', 'sort', 'command', 'chip', 'map', 'matrix', 'low', 'card']
    assert [each for each in reached if each in wanted] == wanted
    page.one('#command').click()
    assert page.js(NAMED) == [] and page.js('return document.activeElement.id') == 'command-title'


def test_a_phone_shows_one_view_at_a_time(page, views):
    measures = {'width': 390, 'height': 844, 'deviceScaleFactor': 2, 'mobile': False}
    page.driver.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', measures)
    try:
        page.open(views)
        assert not page.one('#views').is_displayed()
        page.one('#views-switch').click()
        sides = {'map': 'map-view', 'matrix': 'matrix-view', 'values': 'values-view'}
        for key, wanted in sides.items():
            page.js('arguments[0].click()', page.one(f'#tabs input[value={key}]'))
            assert [id for id in sides.values() if page.one(f'#{id}').is_displayed()] == [wanted]
            assert page.js('return document.documentElement.scrollWidth') <= 390
    finally:
        page.driver.execute_cdp_cmd('Emulation.clearDeviceMetricsOverride', {})


def test_a_thousand_classes_are_zoomed_into(page, tmp_path):
    classes = {i: f'class {i}' for i in range(1000)}
    lines = []
    for i in range(2000):
        wrong = i % 4 == 0
        made = line(
            i, f'{i:04d}', known((i + wrong) % 1000, 0.5, classes), known(i % 1000, None, classes), home='x', files=[]
        )
        lines.append(made)
    page.open(build_gallery(write_run(tmp_path, lines))[0])
    page.js("document.getElementById('matrix').focus()")
    page.keys(*'++++++++++++', 'ARROW_RIGHT')  # six classes in the middle are left; the first of them is pointed at
    said = page.one('#matrix-said').text
    number = int(said.split('class ')[1].split(',')[0])
    right = [f'{i:04d}' for i in (number, number + 1000) if i % 4]
    assert 490 < number < 500 and f'prediction class {number}: {len(right)} image' in said
    page.keys('ARROW_RIGHT', 'ENTER')
    wrong = [f'{i:04d}' for i in (number, number + 1000) if not i % 4]
    assert chips(page) == [f'Truth class {number}', f'Prediction class {number + 1}'] and page.cards() == wrong


def test_fifty_thousand_points(page, tmp_path):
    count = 50_000
    classes = {i: f'class {i}' for i in range(100)}
    lines = []
    for i in range(count):
        made = line(
            i, f'{i:05d}', known(i % 100, (i % 997) / 997, classes), known(i % 100, None, classes), home='x', files=[]
        )
        made['points'] = [[i % 250, i // 250]]
        lines.append(made)
    path = build_gallery(write_run(tmp_path, lines[:1], **MAP))[0]
    whole = FinishedRun(tmp_path, {'config': 'large', **MAP}, tuple(lines))
    path.with_name('data.js').write_text(as_script(page_data([whole], [''])))
    page.open(path)
    assert page.count() == '50,000 images' and page.js("return document.querySelectorAll('*').length") < 4000
    drag(page, '#map', (0.5, 0.0), (0.5, 1.0), (1.0, 1.0), (1.0, 0.0))
    wait_for(page, '25,000 of 50,000 images')
    assert page.cards()[0] == '00125'
    page.one('#tools input[value=pan]').find_element('xpath', '..').click()
    before = page.js("return document.getElementById('map').toDataURL()")
    drag(page, '#map', (0.5, 0.5), (0.2, 0.5))
    page.wait(lambda: page.js("return document.getElementById('map').toDataURL()") != before)
    assert page.count() == '25,000 of 50,000 images'
