"""The report of a check: a table in characters, and one page with the verdicts, the film strips and the grids."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from vistool.errors import counted
from vistool.results.checks import CheckReport, Finding, Grid
from vistool.visualization import text as fitting
from vistool.visualization.scene import Pixels
from vistool.visualization.style import Page, Style, lookup_table
from vistool.visualization.vector import parameters

LABELS = {
    'randomization': 'random weights',
    'classes': 'other classes',
    'gridpg': 'GridPG',
    'difull': 'DiFull',
    'direction': 'direction',
    'maps': 'map',
    'stability': 'noise',
    'layers': 'layer',
}
"""Check → what tables call it."""
MEANINGS = {
    'randomization': 'rank correlation, all weights random',
    'classes': 'rank correlation with another class',
    'gridpg': 'share in the right cell; chance 25%',
    'difull': 'the same, cells disconnected',
    'direction': 'area, least − most relevant first',
    'maps': 'blank, constant, saturated or border',
    'stability': 'relative change under 2% of noise',
    'layers': 'insertion gained at another layer',
}
"""Check → what its number is."""
_MARKS = {'pass': ('✓', '#2a7f3f'), 'fail': ('✗', '#b2182b'), 'open': ('–', '#777777')}
_WORDS = {'pass': 'pass', 'fail': 'FAIL', 'open': '–'}
_SHARES = ('gridpg', 'difull', 'maps', 'stability')
_MOST_METHODS = 6
"""Methods whose maps are on the page; the table has all of them."""
_GRAY, _RULE = '#666666', '#bbbbbb'
_SCREEN = 960.0


def number(finding: Finding) -> str:
    """A finding's number as tables show it; ``''`` for none."""
    if finding.value is None:
        return ''
    if finding.check in _SHARES:
        return f'{finding.value:.0%}'
    return signed(finding.value, '+' if finding.check in ('direction', 'layers') else '')


def signed(value: float, plus: str = '') -> str:
    """Two digits with a true minus, and none before zero."""
    value = round(value, 2) + 0.0
    return f'{value:{plus}.2f}'.replace('-', '−')


def table(report: CheckReport) -> str:
    """The verdicts in columns, a row for each method, and below them the reason of whatever did not pass."""
    head = ['', *(LABELS.get(check, check) for check in report.checks)]
    lines = [head]
    for method, title in report.titles.items():
        found = [report[method, check] for check in report.checks]
        lines.append([title, *(f'{_WORDS[each.verdict]} {number(each)}'.strip() for each in found)])
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    rows = ['  '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return '\n'.join([*rows, *reasons(report)])


def reasons(report: CheckReport) -> list[str]:
    """A line for each reason of findings that did not pass: what failed first, then what is open."""
    checks: dict[tuple[str, str, str], list[str]] = {}
    for each in report.findings:
        if each.verdict != 'pass':
            label = LABELS.get(each.check, each.check)
            checks.setdefault((each.verdict, each.text, report.titles[each.method]), []).append(label)
    lines: dict[tuple[str, str, str], list[str]] = {}
    for (verdict, told, title), named in checks.items():
        lines.setdefault((verdict, ', '.join(named), told), []).append(title)
    every = len(report.titles) if len(report.titles) > 1 else 0
    found = []
    for (verdict, labels, told), titles in sorted(lines.items(), key=lambda line: line[0][0] != 'fail'):
        who = 'all methods' if len(titles) == every else ', '.join(titles)
        found.append(f'{_sentence(verdict, who, len(titles), labels)}: {told}')
    return found


def _sentence(verdict: str, titles: str, count: int, labels: str) -> str:
    if labels == LABELS['layers']:
        return f'{titles}, {labels}'
    if verdict == 'fail':
        return f'{titles} {"fails" if count == 1 else "fail"} at {labels}'
    return f'{titles}, open ({labels})'


@dataclass
class _Sheet:
    """A figure on which things are placed from the top down, in inches.

    Attributes:
        figure: The figure, with its final size.
        top: How much is used.
        size: Font size in points.
        small: Of captions.
    """

    figure: Figure
    width: float
    height: float
    top: float
    size: float
    small: float

    def text(self, x: float, y: float, words: str, **look: Any) -> None:
        """Words at a place in inches from the left and the top."""
        look = {'fontsize': self.size, 'va': 'center', 'ha': 'left', **look}
        self.figure.text(x / self.width, 1 - y / self.height, words, **look)

    def shrunk(self, words: str, width: float) -> dict[str, float]:
        """The font size of a caption that has this much room, in inches: smaller where it has to be."""
        needed = fitting.text_width(words, self.small) / 72
        return {'fontsize': self.small * max(0.75, min(1.0, width / needed if needed else 1.0))}

    def rule(self, y: float, left: float = 0.0) -> None:
        """A thin line across."""
        at = 1 - y / self.height
        line = Rectangle((left / self.width, at), 1 - 2 * left / self.width, 0, lw=0.4, ec=_RULE, transform=None)
        line.set_transform(self.figure.transFigure)
        self.figure.add_artist(line)

    def image(self, x: float, y: float, pixels: Pixels, width: float, height: float) -> Any:
        """A picture with its upper left corner at a place."""
        box = (x / self.width, 1 - (y + height) / self.height, width / self.width, height / self.height)
        axes = self.figure.add_axes(box)
        axes.imshow(pixels, aspect='auto', interpolation='none')
        axes.set_axis_off()
        return axes


def draw_check(report: CheckReport, made: Figure, style: Style, page: Page) -> None:
    """The whole page; a figure of the page's width, as high as it has to be."""
    size, small = page.font * page.points, page.small_font * page.points
    with parameters({'font.size': size}):
        width = (page.width or _SCREEN) * page.points / 72
        line, gap = size * 1.75 / 72, size * 1.2 / 72
        margin = 0.0 if page.paper else 0.1
        sheet = _Sheet(made, width, 1.0, margin, size, small)
        notes = _wrapped(report, sheet)
        strip = _strip_size(report, sheet)
        games = _games(report)
        shown = list(report.cascades)[:_MOST_METHODS]
        height = sum(
            [
                2 * margin + (0 if page.paper else 1.4 * line),
                (len(report.checks) + 1.3) * line + gap,
                2.15 * line + len(shown) * (strip[1] + 1.15 * line) + gap if shown else 0,
                sum(_grid_size(sheet, row)[1] + 2.4 * line for row in games),
                small * 1.4 / 72 * len(notes),
            ]
        )
        made.set_size_inches(width, height)
        sheet.height = height
        if not page.paper:
            told = f'{report.model} · {", ".join(report.layers) or "no layer"} · {counted(report.count, "image")}'
            sheet.text(margin, sheet.top + 0.6 * line, told, color=_GRAY)
            sheet.top += 1.4 * line
        _verdicts(report, sheet, line, margin)
        sheet.top += gap
        if shown:
            _strips(report, sheet, shown, strip, line, style, margin)
            sheet.top += gap
        for row in games:
            _grids(report, sheet, row, line, style, margin)
        for note in notes:
            sheet.text(margin, sheet.top + small * 0.7 / 72, note, fontsize=small)
            sheet.top += small * 1.4 / 72


def _verdicts(report: CheckReport, sheet: _Sheet, line: float, left: float) -> None:
    """Checks down, methods across: a mark and the number."""
    methods = list(report.titles)
    names = fitting.text_width('random weights', sheet.size) * 1.1 / 72
    what = max(fitting.text_width(MEANINGS[check], sheet.small) for check in report.checks if check in MEANINGS) / 72
    wide = sheet.width - left - names - what - 0.1 > 0.5 * len(methods)
    start = left + names + (what + 0.15 if wide else 0.05)
    column = min((sheet.width - left - start) / len(methods), 1.1)
    y = sheet.top + 0.5 * line
    for place, method in enumerate(methods):
        title = fitting.elide(report.titles[method], sheet.size, (column - 0.04) * 72) or report.titles[method][:4]
        sheet.text(start + (place + 0.5) * column, y, title, ha='center', weight='bold')
    sheet.top += line
    sheet.rule(sheet.top, left)
    sheet.top += 0.15 * line
    for check in report.checks:
        y = sheet.top + 0.5 * line
        sheet.text(left, y, LABELS.get(check, check))
        if wide:
            sheet.text(left + names, y, MEANINGS.get(check, ''), color=_GRAY, fontsize=sheet.small)
        for place, method in enumerate(methods):
            found = report[method, check]
            mark, color = _MARKS[found.verdict]
            told = number(found)
            wide_mark, wide_number = (fitting.text_width(each, sheet.size) / 72 for each in (f'{mark} ', told))
            x = start + (place + 0.5) * column - (wide_mark + wide_number) / 2
            sheet.text(x, y, mark, color=color, weight='bold')
            sheet.text(x + wide_mark, y, told, color=color if found.verdict == 'fail' else 'black')
        sheet.top += line
    sheet.top += 0.15 * line
    sheet.rule(sheet.top, left)


def _strip_size(report: CheckReport, sheet: _Sheet) -> tuple[float, float]:
    """Width and height of a tile of the film strips."""
    columns = len(report.stages) + 2
    height, width = report.image.shape[:2]
    across = (sheet.width - 2 * sheet.top - 0.03 * (columns - 1)) / columns
    return across, across * height / width


def _strips(
    report: CheckReport,
    sheet: _Sheet,
    shown: Sequence[str],
    tile: tuple[float, float],
    line: float,
    style: Style,
    left: float,
) -> None:
    """A row for each method: the photo, the map, and the maps while more and more of the network is random."""
    sheet.text(left, sheet.top + 0.5 * line, _strip_title(report, len(shown)), weight='bold')
    sheet.top += 1.15 * line
    heads = ['', 'trained', *report.stages[:-1], 'all']
    for place, head in enumerate(heads):
        told = fitting.elide(_short(head), sheet.small, tile[0] * 72) or ''
        center = left + place * (tile[0] + 0.03) + tile[0] / 2
        sheet.text(center, sheet.top + 0.45 * line, told, ha='center', fontsize=sheet.small, color=_GRAY)
    sheet.top += line
    for method in shown:
        cascade = report.cascades[method]
        title, first = report.titles[method], method == shown[0]
        below = 0.5 * line if first else -tile[1] / 2  # under the photo, which stands there once, or in its column
        if first:
            sheet.image(left, sheet.top, report.image, *tile)
        sheet.text(left + tile[0] / 2, sheet.top + tile[1] + below, title, ha='center', **sheet.shrunk(title, tile[0]))
        for place, (values, numbers) in enumerate(zip(cascade.maps, cascade.similarity, strict=True), 1):
            x = left + place * (tile[0] + 0.03)
            sheet.image(x, sheet.top, overlaid(report.image, values, style), *tile)
            told = f'ρ {signed(numbers[0])}' if place > 1 else ''
            sheet.text(x + tile[0] / 2, sheet.top + tile[1] + 0.5 * line, told, ha='center', fontsize=sheet.small)
        sheet.top += tile[1] + 1.15 * line


def _strip_title(report: CheckReport, shown: int) -> str:
    rest = len(report.cascades) - shown
    return 'Weights made random, from the head down to …' + (f' (the first {shown} methods)' if rest else '')


def _short(name: str) -> str:
    """A layer's name without what all layers have in front."""
    for prefix in ('model.', 'backbone.'):
        name = name.removeprefix(prefix)
    return name


def _games(report: CheckReport) -> list[list[Grid]]:
    """The grids of each game, those of one game in a row."""
    rows: dict[str, list[Grid]] = {}
    for each in report.grids:
        rows.setdefault(each.check, []).append(each)
    return [row[:_MOST_METHODS] for row in rows.values()]


def _grid_size(sheet: _Sheet, row: Sequence[Grid]) -> tuple[float, float]:
    height, width = row[0].image.shape[:2]
    across = min((sheet.width - 0.2 - 0.05 * len(row)) / (len(row) + 1), sheet.width / 4.5)
    return across, across * height / width


def _grids(report: CheckReport, sheet: _Sheet, row: Sequence[Grid], line: float, style: Style, left: float) -> None:
    """The photos of a grid, then the map of each method, with the right cell outlined."""
    first, tile = row[0], _grid_size(sheet, row)
    title = f'{LABELS[first.check]}: the evidence for {first.target}, whose photo is outlined'
    sheet.text(left, sheet.top + 0.5 * line, title, weight='bold')
    sheet.top += 1.15 * line
    pictures = [first.image, *(overlaid(each.image, each.values, style) for each in row)]
    under = ['', *(f'{report.titles[each.method]} {_percent(each.share)}' for each in row)]
    for place, (pixels, told) in enumerate(zip(pictures, under, strict=True)):
        x = left + place * (tile[0] + 0.05)
        axes = sheet.image(x, sheet.top, pixels, *tile)
        high, wide = (side / 2 for side in pixels.shape[:2])
        corner = first.cell[1] * wide - 0.5, first.cell[0] * high - 0.5
        for color, weight in (('black', 1.8), ('white', 0.9)):
            axes.add_patch(Rectangle(corner, wide, high, fill=False, ec=color, lw=weight, clip_on=False))
        sheet.text(x + tile[0] / 2, sheet.top + tile[1] + 0.5 * line, told, ha='center', fontsize=sheet.small)
    sheet.top += tile[1] + 1.25 * line


def _percent(share: float) -> str:
    return '–' if np.isnan(share) else f'{share:.0%}'


def _wrapped(report: CheckReport, sheet: _Sheet) -> list[str]:
    """The reasons in lines of the page's width."""
    columns = int((sheet.width - 2 * sheet.top) * 72 / (sheet.small * 0.52))
    return [part for told in reasons(report) for part in textwrap.wrap(told, columns, subsequent_indent='   ')]


def overlaid(image: Pixels, values: NDArray[np.float32], style: Style) -> Pixels:
    """A map in colors over its image, as heat maps of CAM are drawn."""
    colors = lookup_table(style.colormap or 'jet')
    weight = style.alpha if isinstance(style.alpha, float) else 0.5
    level = (np.nan_to_num(values).clip(0, 1) * 255).round().astype(np.uint8)
    mixed: Pixels = (image * (1 - weight) + colors[level] * weight).round().astype(np.uint8)
    return mixed
