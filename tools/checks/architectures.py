"""Compares vistool with independent computations on architectures drawn at random.

    python tools/checks/architectures.py --seed 1 --count 60

CAM, feature maps, attention and patches of each network are checked: that the values are right, and that each cell of a
map answers to the part of the image that it is drawn over. Exit code 1 if anything is wrong or crashes.
"""

from __future__ import annotations

import argparse
import gc
import logging
import sys
import time
import warnings
from collections import Counter
from collections.abc import Sequence

from comparisons import Comparison, Outcome
from zoo import MOST_PARAMETERS, Architecture, Unfit, assemble, draw

TASKS = ('cam', 'featmap', 'attention', 'patches')
VERDICTS = ('equal', 'refused', 'unproven', 'WRONG', 'CRASH')


def check(
    architecture: Architecture,
    seed: int,
    tasks: Sequence[str] = TASKS,
    inner: int = 3,
    most: int = MOST_PARAMETERS,
) -> list[Outcome]:
    """Builds one architecture and compares every task.

    Args:
        architecture: The architecture.
        seed: Of its weights and images, and of what is chosen in it.
        tasks: Some of :data:`TASKS`.
        inner: How many random layers are looked at besides the default ones.
        most: Parameters that it may have.

    Raises:
        Unfit: It is too large, or takes none of the input sizes.
    """
    network = assemble(architecture, seed, most)
    height, width = network.images.shape[2:]
    print(f'{architecture}  {height}×{width}', flush=True)
    comparison = Comparison(network, seed, inner)
    outcomes = []
    for task in tasks:
        outcomes += comparison.task(task, getattr(comparison, task))
    return outcomes


def describe(outcomes: Sequence[Outcome], verbose: bool) -> str:
    """Lines for one architecture: a summary, then whatever is not equal."""
    parts = []
    for task in TASKS:
        counts = Counter(each.verdict for each in outcomes if each.task == task)
        told = ', '.join(f'{counts[verdict]} {verdict}' for verdict in VERDICTS if counts[verdict])
        parts.append(f'{task}: {told or "not tried"}')
    lines = ['  ' + ' · '.join(parts)]
    for each in outcomes:
        if each.verdict != 'equal' or each.reason or verbose:
            lines.append(f'    {each.verdict:8} {each.task} {each.subject}{f": {each.reason}" if each.reason else ""}')
    return '\n'.join(lines)


def totals(outcomes: Sequence[Outcome]) -> str:
    """A table of tasks and verdicts."""
    lines = [f'{"":10}' + ''.join(f'{verdict:>10}' for verdict in VERDICTS)]
    for task in TASKS:
        counts = Counter(each.verdict for each in outcomes if each.task == task)
        lines.append(f'{task:10}' + ''.join(f'{counts[verdict]:>10}' for verdict in VERDICTS))
    return '\n'.join(lines)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--seed', type=int, default=0, help='what is drawn, and all random weights')
    parser.add_argument('--count', type=int, default=60, help='how many architectures; default 60')
    parser.add_argument('--after', default='', metavar='NAME', help='go on after this one (library/name) of the draw')
    parser.add_argument('--only', default='', metavar='PATTERN', help='text in library/name, or a family')
    parser.add_argument('--tasks', nargs='+', choices=TASKS, default=TASKS, metavar='TASK', help=', '.join(TASKS))
    parser.add_argument('--inner', type=int, default=3, help='random layers besides the default ones; default 3')
    parser.add_argument('--most', type=float, default=MOST_PARAMETERS / 1e6, help='million parameters; default 60')
    parser.add_argument('--verbose', action='store_true', help='also list what is equal')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Checks the architectures; returns the exit code."""
    args = parse(argv)
    warnings.filterwarnings('ignore')
    logging.disable(logging.WARNING)
    outcomes: list[Outcome] = []
    skipped: list[str] = []
    checked = 0
    drawn = draw(args.seed, args.only)
    while args.after and str(next(drawn)) != args.after:
        pass
    for architecture in drawn:
        if checked == args.count:
            break
        start = time.perf_counter()
        try:
            found = check(architecture, args.seed, args.tasks, args.inner, int(args.most * 1e6))
        except Unfit as reason:
            skipped.append(f'{architecture} ({reason})')
            continue
        checked += 1
        outcomes += found
        print(describe(found, args.verbose), f'  {time.perf_counter() - start:.0f} s', sep='', flush=True)
        gc.collect()
    if skipped:
        print(f'\nanother drawn in place of {len(skipped)}: {"; ".join(skipped)}')
    print(f'\n{checked} architectures, seed {args.seed}\n{totals(outcomes)}')
    return 1 if any(each.bad for each in outcomes) else 0


if __name__ == '__main__':
    sys.exit(main())
