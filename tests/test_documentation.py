"""The scripts that keep the documents true: which steps they find, which differences they see."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

DOCS = Path(__file__).parents[1] / 'docs'


@pytest.fixture(scope='module')
def scripts():
    sys.path.insert(0, str(DOCS))
    try:
        import check_languages
        import run_commands
    finally:
        sys.path.remove(str(DOCS))
    return check_languages, run_commands


PAGE = """# Title

<!-- run: touch hidden -->
<!-- expect: 1 -->
```bash
test -e hidden && mv given.png picture.png && exit 1  # a comment
```

<!-- picture: picture.png -->
![A picture](images/picture.webp)

<!-- python
number = 20
-->
```python
number += 1
```

- An item:

  ```python
  assert number == 21
  ```

<!-- skip: needs a cluster -->
```bash
false
```

| A | B |
| --- | --- |
| 1 | [page](page.md#part) |
"""


def test_a_page_is_run_from_top_to_bottom(scripts, tmp_path):
    _, run_commands = scripts
    page = tmp_path / 'page.md'
    Image.new('RGB', (40, 40), 'red').save(tmp_path / 'given.png')
    report = run_commands.Runner(page, tmp_path, 1, replace=True).run(run_commands.steps_of(PAGE))
    assert not report.failed and report.ran == 5
    assert report.skipped == ['page.md:26: needs a cluster: false']
    with Image.open(tmp_path / 'images/picture.webp') as picture:
        assert picture.format == 'WEBP' and picture.size == (40, 40)


def test_a_picture_is_replaced_where_it_looks_different(scripts, tmp_path):
    _, run_commands = scripts
    drawn, shown = tmp_path / 'drawn.png', tmp_path / 'shown.jpg'
    noise = np.random.default_rng(0).integers(100, 140, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(drawn)
    run_commands.save_picture(drawn, shown)
    before = shown.read_bytes()
    Image.fromarray(noise + np.uint8(4)).save(drawn)  # as far as lossy encoding goes
    run_commands.save_picture(drawn, shown)
    assert shown.read_bytes() == before
    noise[8:14, 20:24] = 255  # a digit
    Image.fromarray(noise).save(drawn)
    run_commands.save_picture(drawn, shown)
    assert shown.read_bytes() != before


@pytest.mark.parametrize(
    ('text', 'problem'),
    [
        ('```bash\nfalse\n```', 'exit code 1, expected 0'),
        ('<!-- expect: 2 -->\n```bash\ntrue\n```', 'exit code 0, expected 2'),
        ('```python\nraise ValueError("no")\n```', 'ValueError: no'),
        ('<!-- picture: a.png -->\n![a](a.png)', 'no command has written a.png'),
    ],
)
def test_what_fails_is_reported_with_its_line(scripts, tmp_path, text, problem):
    _, run_commands = scripts
    report = run_commands.Runner(tmp_path / 'page.md', tmp_path, 1, replace=False).run(run_commands.steps_of(text))
    (failed,) = report.failed
    assert failed.startswith(f'page.md:{1 + text.startswith("<!--")}') and problem in failed


def test_every_picture_of_the_documents_says_what_makes_it(scripts):
    _, run_commands = scripts
    assert run_commands.unmade(run_commands.PAGES) == []


def test_a_translated_page_has_the_same_structure(scripts):
    check_languages, _ = scripts
    translated = PAGE.replace('# Title', '# 标题').replace('A picture', '图').replace('# a comment', '# 注释')
    translated = translated.replace('[page](page.md#part)', '[页面](page.md#部分)')
    english, chinese = check_languages.structure_of(PAGE), check_languages.structure_of(translated)
    assert check_languages.differences('page.md', english, chinese) == []


@pytest.mark.parametrize(
    ('old', 'new', 'what'),
    [
        ('# Title', '## Title', 'headings'),
        ('mv given.png', 'cp given.png', 'code'),
        ('images/picture.webp', 'images/other.webp', 'pictures'),
        ('| 1 | [page]', '| 1 | 2 | [page]', 'tables'),
        ('page.md#part', 'other.md#part', 'is linked 1 and 0 times'),
    ],
)
def test_a_difference_of_two_languages_is_found(scripts, old, new, what):
    check_languages, _ = scripts
    english, chinese = check_languages.structure_of(PAGE), check_languages.structure_of(PAGE.replace(old, new))
    assert any(what in line for line in check_languages.differences('page.md', english, chinese))
