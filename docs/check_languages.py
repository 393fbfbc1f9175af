"""Compares the English with the Chinese documents: the same pages, and on each the same structure.

    python docs/check_languages.py

It compares, in order, the levels of the headings, the code without its comments, the pictures, the rows and columns of
the tables, and the pages and files that links name. Every difference is a line, and
the exit code is then 1. Anchors are checked when the sites are built.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

DOCS = Path(__file__).resolve().parent
ENGLISH, CHINESE = DOCS / 'en', DOCS / 'zh_cn'
BESIDE = [(DOCS.parent / f'{name}.md', DOCS.parent / f'{name}_zh-CN.md') for name in ('README', 'CONTRIBUTING')]
"""Pages at the top of the repository, whose links name their language."""

_PAGES = ('.md', '.rst')
_COMMENT = re.compile(r'(^|\s+)#\s.*$')
_HTML_COMMENT = re.compile(r'<!--.*?-->', re.DOTALL)
_HEADING = re.compile(r'(#+) ')
_LINK = re.compile(r'(?<!!)\[[^\[\]]*\]\(([^)\s]+)\)')
_PICTURE = re.compile(r'!\[[^\]]*\]\(([^)\s]+)\)')
_CELL = re.compile(r'(?<!\\)\|')
_TITLE = re.compile(r'^.* <([\w-]+)>$')
_LANGUAGE = re.compile(r'docs/(en|zh_cn)/|(README|CONTRIBUTING)(_zh-CN)?\.md')


@dataclass
class Structure:
    """What two pages of the same content share.

    Attributes:
        headings: The level of each heading.
        code: The language and the lines of each block, without comments and empty lines.
        pictures: The path of each picture.
        tables: Rows and columns of each table.
        links: How often each page, file or address is linked.
    """

    headings: list[int] = field(default_factory=list)
    code: list[tuple[str, ...]] = field(default_factory=list)
    pictures: list[str] = field(default_factory=list)
    tables: list[tuple[int, int]] = field(default_factory=list)
    links: Counter[str] = field(default_factory=Counter)


def structure_of(text: str) -> Structure:
    """The structure of a Markdown page."""
    structure = Structure()
    block: list[str] | None = None
    rows = columns = 0
    prose = []
    for line in [*_HTML_COMMENT.sub('', text).splitlines(), '']:
        line = line.strip()
        if block is not None:
            if line.startswith('```'):
                structure.code.append(tuple(block))
                block = None
            elif code := _COMMENT.sub('', line):
                block.append(code)
            continue
        if line.startswith('|'):
            rows, columns = rows + 1, len(_CELL.findall(line)) - 1
        elif rows:
            structure.tables.append((rows, columns))
            rows = 0
        if line.startswith('```'):
            block = [line]
        elif heading := _HEADING.match(line):
            structure.headings.append(len(heading[1]))
        prose.append(line)
    whole = ' '.join(prose)
    structure.pictures = _PICTURE.findall(whole)
    structure.links = Counter(page for link in _LINK.findall(whole) if (page := link.partition('#')[0]))
    return structure


def shared(block: tuple[str, ...]) -> tuple[str, ...]:
    """A block without what the languages say differently: captions and titles of the contents, links, plain text."""
    if block[0] in ('```', '```text'):
        return block[:1]
    options = (':caption:', ':relative-docs:')
    return tuple(_TITLE.sub(r'\1', line) for line in block if not line.startswith(options))


def differences(name: str, english: Structure, chinese: Structure) -> list[str]:
    """What differs, a line each."""
    found = []
    for what in ('headings', 'pictures', 'tables'):
        ours, theirs = getattr(english, what), getattr(chinese, what)
        if ours != theirs:
            found.append(f'{name}: {what}: {_first_difference(ours, theirs)}')
    ours, theirs = [shared(block) for block in english.code], [shared(block) for block in chinese.code]
    if ours != theirs:
        found.append(f'{name}: code: {_first_difference(ours, theirs)}')
    links = {page: (english.links[page], chinese.links[page]) for page in english.links | chinese.links}
    found += [f'{name}: {page} is linked {a} and {b} times' for page, (a, b) in links.items() if a != b]
    return found


def _first_difference(english: Sequence[object], chinese: Sequence[object]) -> str:
    for number, (ours, theirs) in enumerate(zip(english, chinese, strict=False), start=1):
        if ours != theirs:
            return f'number {number} is {ours!r} in English and {theirs!r} in Chinese'
    return f'{len(english)} in English and {len(chinese)} in Chinese'


def compare(english: Path, chinese: Path) -> list[str]:
    """The differences of two pages of the same content."""
    texts = [_LANGUAGE.sub('', path.read_text(encoding='utf-8')) for path in (english, chinese)]
    return differences(english.name, *map(structure_of, texts))


def main() -> int:
    """Prints every difference; returns 1 if there is one."""
    names = [
        {path.name for path in folder.iterdir() if path.suffix in ('.md', '.rst')} for folder in (ENGLISH, CHINESE)
    ]
    found = [f'{name}: there is no Chinese page' for name in sorted(names[0] - names[1])]
    found += [f'{name}: there is no English page' for name in sorted(names[1] - names[0])]
    for name in sorted(names[0] & names[1]):
        if name.endswith('.md'):
            found += compare(ENGLISH / name, CHINESE / name)
    found += [difference for pair in BESIDE for difference in compare(*pair)]
    same = f'{len(names[0])} pages, the README and CONTRIBUTING have the same structure in both languages'
    print(*found or [same], sep='\n')
    return int(bool(found))


if __name__ == '__main__':
    sys.exit(main())
