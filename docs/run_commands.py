"""Runs the commands and the Python examples of the documents, and makes the pictures that they show.

    python docs/run_commands.py                     # every page of docs/en, and README.md
    python docs/run_commands.py --only vis_cam      # some pages
    python docs/run_commands.py --pictures          # also replaces what looks different in docs/images

A page is run from top to bottom in a folder of its own that holds ``demo``, ``configs`` and ``tools``. Blocks marked
``bash`` are commands; each has to exit with 0. Blocks marked ``python`` of one page share their names, as in a
notebook. Comments, which neither GitHub nor the site shows, say the rest; each stands above what it is about:

    <!-- skip: REASON -->       the block is not run; the reason is listed at the end
    <!-- needs: PACKAGE -->     the block is run where this package is installed
    <!-- expect: 1 -->          the exit code of the block
    <!-- file: my_model.py -->  the block is a file, and is written
    <!-- run: COMMAND -->       a command that readers do not see
    <!-- python … -->           Python that readers do not see
    <!-- picture: FILE -->      the picture below is this file, which a command above has written
    <!-- by hand: REASON -->    the picture below is a screenshot
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image, ImageChops

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / 'README.md', *sorted((ROOT / 'docs/en').glob('*.md'))]
ELSEWHERE = {'contributing': 'tests/test_contributing.py follows it in a copy of the package'}
"""Pages whose commands something else runs."""

TIMEOUT = 600.0
_ITEM = re.compile(
    r'<!--\s*(?P<comment>.*?)\s*-->'
    r'|^ *```(?P<language>\w+)\n(?P<code>.*?)^ *```$'
    r'|^ *!\[[^\]]*\]\((?P<picture>[^)]+)\)$',
    re.DOTALL | re.MULTILINE,
)
_ENCODING = {'.jpg': {'quality': 88}, '.webp': {'quality': 80, 'method': 6}}
_MARKS = ('skip', 'needs', 'expect', 'file', 'picture', 'by hand')

# Runs the Python of one page: reads one JSON string of code per line, answers with one line each.
_DRIVER = """
import json, os, sys, traceback
answers = os.fdopen(os.dup(1), 'w', buffering=1)
os.dup2(2, 1)
names = {'__name__': '__main__'}
for line in sys.stdin:
    try:
        exec(compile(json.loads(line), 'example', 'exec'), names)
    except BaseException:
        traceback.print_exc()
        answers.write('failed\\n')
    else:
        answers.write('done\\n')
    sys.stderr.flush()
"""


@dataclass(frozen=True)
class Step:
    """One thing that a page asks for.

    Attributes:
        kind: ``bash``, ``python`` or ``picture``.
        text: The code, or the path of the picture as the page has it.
        line: Where it stands, from 1.
        marks: What the comments above it say, by their first word.
    """

    kind: str
    text: str
    line: int
    marks: dict[str, str]


@dataclass
class Report:
    """What happened on one page."""

    page: Path
    ran: int = 0
    seconds: float = 0.0
    skipped: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    made: set[Path] = field(default_factory=set)


def steps_of(text: str) -> list[Step]:
    """The steps of a page, in their order."""
    steps: list[Step] = []
    marks: dict[str, str] = {}
    for match in _ITEM.finditer(text):
        line = text.count('\n', 0, match.start()) + 1
        comment, language = match['comment'], match['language']
        if comment is not None:
            word, _, rest = comment.partition(':')
            if word in _MARKS:
                marks[word] = rest.strip()
            elif word == 'run':
                steps.append(Step('bash', rest.strip(), line, {}))
            elif comment.startswith('python\n'):
                steps.append(Step('python', comment.removeprefix('python\n'), line, {}))
            continue
        if match['picture'] is not None:
            steps.append(Step('picture', match['picture'], line, marks))
        elif language in ('bash', 'python'):
            steps.append(Step(language, textwrap.dedent(match['code']), line, marks))
        marks = {}
    return steps


@contextmanager
def workspace() -> Iterator[Path]:
    """A folder with what commands of the documents name, removed afterwards."""
    with tempfile.TemporaryDirectory(prefix='vistool-docs-') as name:
        folder = Path(name)
        for part in ('demo', 'configs', 'tools'):
            shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns('__pycache__'))
        yield folder


def environment(threads: int) -> dict[str, str]:
    """The environment of every command: this checkout and this interpreter."""
    paths = [str(ROOT), os.environ.get('PYTHONPATH', '')]
    return {
        **os.environ,
        'PATH': os.pathsep.join([str(Path(sys.executable).parent), os.environ.get('PATH', '')]),
        'PYTHONPATH': os.pathsep.join(path for path in paths if path),
        'MPLBACKEND': 'Agg',
        'OMP_NUM_THREADS': str(threads),
    }


class Runner:
    """Runs the steps of one page in a folder."""

    def __init__(self, page: Path, folder: Path, threads: int, replace: bool) -> None:
        self.folder, self.replace = folder, replace
        self.environment = environment(threads)
        self.report = Report(page)
        self.python: subprocess.Popen[str] | None = None

    def run(self, steps: Sequence[Step]) -> Report:
        """Takes every step; a step that fails does not end the page."""
        begin = time.monotonic()
        try:
            for step in steps:
                self._take(step)
        finally:
            if self.python is not None:
                self.python.kill()
                self.python.wait()
        self.report.seconds = time.monotonic() - begin
        return self.report

    def _take(self, step: Step) -> None:
        place = f'{self.report.page.name}:{step.line}'
        first = step.text.strip().splitlines()[0]
        package = step.marks.get('needs')
        if package is not None and importlib.util.find_spec(package) is None:
            self.report.skipped.append(f'{place}: {package} is not installed: {first}')
        elif step.kind == 'picture':
            self._picture(step, place)
        elif 'skip' in step.marks:
            self.report.skipped.append(f'{place}: {step.marks["skip"]}: {first}')
        elif 'file' in step.marks:
            target = self.folder / step.marks['file']
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(step.text, encoding='utf-8')
        else:
            problem = self._bash(step) if step.kind == 'bash' else self._python(step)
            self.report.ran += 1
            if problem:
                self.report.failed.append(f'{place}: {first}\n{problem}')

    def _bash(self, step: Step) -> str:
        """Runs a block; returns what is wrong, or nothing."""
        expected = int(step.marks.get('expect', '0'))
        try:
            done = subprocess.run(
                ['bash', '-euo', 'pipefail', '-c', step.text],
                cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False, timeout=TIMEOUT,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return f'takes longer than {TIMEOUT:.0f} s'
        if done.returncode == expected:
            return ''
        return f'exit code {done.returncode}, expected {expected}\n{done.stdout[-1000:]}{done.stderr[-3000:]}'

    def _python(self, step: Step) -> str:
        """Runs an example among the names of the examples above it; returns what is wrong, or nothing."""
        log = self.folder / '.python.log'
        if self.python is None:
            with log.open('w', encoding='utf-8') as stream:
                self.python = subprocess.Popen(
                    [sys.executable, '-c', _DRIVER],
                    cwd=self.folder, env=self.environment, text=True,
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stream,
                )  # fmt: skip
        assert self.python.stdin is not None and self.python.stdout is not None
        before = log.stat().st_size
        self.python.stdin.write(json.dumps(step.text) + '\n')
        self.python.stdin.flush()
        answer = self.python.stdout.readline().strip()
        return '' if answer == 'done' else log.read_bytes()[before:].decode(errors='replace')[-3000:] or 'Python died'

    def _picture(self, step: Step, place: str) -> None:
        target = (self.report.page.parent / step.text).resolve()
        if 'by hand' in step.marks:
            self.report.skipped.append(f'{place}: {step.marks["by hand"]}: {target.name}')
        elif 'picture' in step.marks:
            source = self.folder / step.marks['picture']
            if not source.is_file():
                self.report.failed.append(f'{place}: no command has written {step.marks["picture"]}')
                return
            if self.replace:
                save_picture(source, target)
        else:
            return
        self.report.made.add(target)


def save_picture(source: Path, target: Path) -> None:
    """Puts a picture in its place in the documents, in the format of that place.

    A picture that looks as it did stays what it is, so that the repository does not grow.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(source) as image:
        if target.is_file():
            with Image.open(target) as before:
                if looks_alike(image, before):
                    return
        if source.suffix == target.suffix == '.jpg':
            shutil.copyfile(source, target)
        elif target.suffix == '.png':
            image.convert('RGB').quantize(128).save(target, optimize=True)
        else:
            image.convert('RGB').save(target, **_ENCODING[target.suffix])


def looks_alike(one: Image.Image, other: Image.Image) -> bool:
    """Whether two pictures differ by no more than lossy encoding does: in no square of 4×4 pixels by 20 of 255."""
    if one.size != other.size:
        return False
    small = [image.convert('L').reduce(4) for image in (one, other)]
    _, largest = ImageChops.difference(*small).getextrema()
    return largest < 20


def run_page(page: Path, threads: int, replace: bool) -> Report:
    """Runs one page in a fresh folder."""
    if page.stem in ELSEWHERE:
        return Report(page, skipped=[f'{page.name}: {ELSEWHERE[page.stem]}'])
    with workspace() as folder:
        return Runner(page, folder, threads, replace).run(steps_of(page.read_text(encoding='utf-8')))


def unmade(pages: Sequence[Path]) -> list[str]:
    """The pictures of all pages for which no page names what makes them."""
    shown: dict[Path, str] = {}
    made: set[Path] = set()
    for page in pages:
        for step in steps_of(page.read_text(encoding='utf-8')):
            if step.kind == 'picture':
                target = (page.parent / step.text).resolve()
                shown.setdefault(target, f'{page.name}:{step.line}: no comment says what makes {step.text}')
                if 'picture' in step.marks or 'by hand' in step.marks:
                    made.add(target)
    return [problem for target, problem in shown.items() if target not in made]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the pages; returns 1 if a command or an example fails or a picture has no maker."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0])
    parser.add_argument('--only', nargs='+', metavar='PAGE', help='these pages: README, vis_cam, …')
    parser.add_argument('--pictures', action='store_true', help='replace the pictures by what the commands drew')
    parser.add_argument('--jobs', type=int, default=1, metavar='N', help='pages at the same time')
    args = parser.parse_args(argv)
    names = {page.stem: page for page in PAGES}
    if unknown := set(args.only or ()) - set(names):
        parser.error(f'no page {", ".join(sorted(unknown))}; accepted: {", ".join(names)}')
    pages = [names[name] for name in args.only or names]
    threads = max(1, (os.cpu_count() or 1) // args.jobs)
    with ThreadPoolExecutor(args.jobs) as pool:
        reports = []
        for report in pool.map(lambda page: run_page(page, threads, args.pictures), pages):
            state = f'{len(report.failed)} failed' if report.failed else 'ok'
            print(f'{report.page.name}: {report.ran} run in {report.seconds:.0f} s, {state}', flush=True)
            reports.append(report)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f'{sum(report.ran for report in reports)} run, {used.ru_utime + used.ru_stime:.0f} s of CPU time')
    failed = [problem for report in reports for problem in report.failed] + unmade(PAGES)
    for line in [f'not run: {line}' for report in reports for line in report.skipped] + failed:
        print(line)
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
