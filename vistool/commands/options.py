"""How words on the command line are parsed, the options that commands share, and what they are translated into.

The ``dest`` of an option is the parameter that it sets, so errors find the option's name.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import re
import shlex
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from vistool.environment import versions
from vistool.errors import InputError, close_matches, counted, in_python, naming, param
from vistool.records import shown

if TYPE_CHECKING:
    from vistool.analyses.base import MapAnalysis
    from vistool.metrics import Protocol
    from vistool.runs.spec import Models, Output, RunSpec
    from vistool.visualization.style import Style


class Parser(argparse.ArgumentParser):
    """An argument parser of the command-line contract.

    Options may be spelled with dashes or underscores and are never abbreviated; ``-1,-2`` is a value; bad usage raises
    :class:`~vistool.errors.InputError`; a list option that took in a positional says so. The ``dest`` of an option is
    the Python parameter that it sets.
    """

    def __init__(self, prog: str, description: str | None, example: str) -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog=f'example:\n  {example}',
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            exit_on_error=False,
        )
        self._typed: dict[str, str] = {}
        self.add_argument('--version', action=_Versions, help='print the versions of vistool and its main packages')
        shells = 'bash|zsh|fish|powershell'
        self.add_argument(
            '--print-completion', action=_Completion, metavar=shells, help='print what the shell evaluates to complete'
        )
        # argparse takes only plain numbers for values; '-1,-2', '-5,3' and '-value' are values as well
        self._negative_number_matcher = re.compile(r'^-(\.?\d|value$)')

    def error(self, message: str) -> NoReturn:
        """Raises what argparse would print with a usage block."""
        hint = f'see {self.prog} --help'
        if 'required' in message:
            lists = any(action.nargs in ('+', '*') and action.dest in self._typed for action in self._actions)
            example = (self.epilog or '').partition('\n')[2].strip()
            hint = (
                f'positional arguments go before options that take a list; {hint}'
                if lists
                else f'{hint}, or try {example}'
            )
        raise InputError(message, hint=hint)

    def parse(self, argv: Sequence[str] | None = None) -> argparse.Namespace:
        """Parses ``argv`` (the process's own by default); options and positionals may be mixed.

        Raises:
            InputError: It is not accepted; the error names the option as it was typed.
        """
        words = [_dashed(word) for word in (sys.argv[1:] if argv is None else argv)]
        self._typed = {}
        for word in words:
            self._note(word)
        try:
            args, unknown = self.parse_known_intermixed_args(words)
        except argparse.ArgumentError as error:
            raise self._refused(error) from error
        if unknown:
            raise self._unknown(words, unknown)
        for action in self._actions:
            self._check_empty(action, getattr(args, action.dest, None))
            if action.option_strings and action.nargs in ('+', '*') and action.dest != 'compare':
                files = action.dest == 'images'
                self._check_list(_long(action), getattr(args, action.dest, None) or [], files)
        return args

    def spelling(self, parameter: str, value: str | None = None) -> str:
        """A parameter as this command's user types it: its option as typed before, or the name of its positional."""
        parameter = _CALLED.get(parameter, parameter)
        for action in self._actions:
            if action.dest == parameter:
                name = self._typed.get(parameter) or _long(action)
                flag = action.nargs in (0, '*') and value == 'True'
                return name if value is None or flag else f'{name} {value}'
        return in_python(parameter, value)

    def _note(self, word: str) -> None:
        """Remembers which of an option's names was typed; refuses ``--`` as its value, which argparse drops."""
        name, equals, value = word.partition('=')
        action = self._option_string_actions.get(name)
        if action is None:
            return
        if name.startswith('--') or action.dest not in self._typed:
            self._typed[action.dest] = name if name.startswith('--') else _long(action)
        if equals and value == '--':
            raise InputError("'--' is not a value", accepted=self._takes(action), parameter=action.dest)

    def _refused(self, error: argparse.ArgumentError) -> InputError:
        """What argparse says of an option's values, and what the option takes."""
        if error.argument_name is None:  # since Python 3.13 missing positionals come here, too
            self.error(error.message)
        for action in self._actions:
            if error.argument_name in ('/'.join(action.option_strings), action.metavar, action.dest):
                problem = 'takes no value' if error.message.startswith('ignored explicit') else error.message
                return InputError(problem, accepted=self._takes(action), parameter=action.dest)
        return InputError(error.message, hint=f'see {self.prog} --help')

    def _unknown(self, words: Sequence[str], unknown: Sequence[str]) -> InputError:
        """Names an option that does not exist, or a word that follows the values of one."""
        first = unknown[0]
        name = first.partition('=')[0]
        if first.startswith('-') and name not in self._option_string_actions:
            hint = close_matches(name, [each for each in self._option_string_actions if each.startswith('--')], 3)
            if others := _commands_with(name):
                hint = f'{name} is an option of {", ".join(others)}; {hint or f"see {self.prog} --help"}'
            return InputError(f'unrecognized option {first!r}', hint=hint or f'see {self.prog} --help')
        before = [word for word in words[: words.index(first)] if word in self._option_string_actions]
        if not before:
            return InputError(f'unrecognized argument {first!r}', hint=f'see {self.prog} --help')
        action = self._option_string_actions[before[-1]]
        taken = f'{self._takes(action)}: {action.help}'.replace('%%', '%')
        return InputError(f'unrecognized argument {first!r} after it', accepted=taken, parameter=action.dest)

    def _takes(self, action: argparse.Action) -> str:
        """What an argument takes, as ``--help`` shows it."""
        if not action.option_strings:
            return action.help or ''
        names = () if action.nargs == 0 else action.metavar or action.dest.upper()
        more = '…' if action.nargs in ('+', '*') else ''
        return ' '.join([self.spelling(action.dest), *([names] if isinstance(names, str) else names), more]).strip()

    def _check_empty(self, action: argparse.Action, value: object) -> None:
        """Refuses an empty word, which would otherwise mean a default or the current folder."""
        values = value if isinstance(value, list) else [value]
        if (action.dest not in self._typed and action.option_strings) or action.dest in _MAY_BE_EMPTY:
            return
        if any(isinstance(each, str) and not each.strip() for each in values):
            raise InputError('an empty value', accepted=self._takes(action), parameter=action.dest)

    def command(self, argv: Sequence[str] | None, without: Collection[str] = ()) -> str:
        """The command line as it was typed, with the program's bare name.

        Args:
            argv: Its words; None: the process's own.
            without: Parameters whose options are left out.
        """
        words = list(sys.argv[1:] if argv is None else argv)
        dropped = {
            option: 1 if action.nargs is None else 0 if action.nargs == 0 else None
            for action in self._actions
            if action.dest in without
            for option in action.option_strings
        }
        kept: list[str] = []
        drop: int | None = 0
        for word in words:
            name = word.partition('=')[0].replace('_', '-') if word.startswith('--') else word
            if name in dropped:
                drop = 0 if '=' in word else dropped[name]
            elif drop is None and not word.startswith('-'):
                continue
            elif drop:
                drop -= 1
            else:
                drop = 0
                kept.append(word)
        return shlex.join([Path(self.prog).stem, *kept])

    def again(self, argv: Sequence[str] | None, without: Collection[str], images: str) -> tuple[str | None, ...]:
        """The words of a command line that explains other images in the same way.

        Args:
            argv: Its words; None: the process's own.
            without: Parameters whose options are left out.
            images: What the user gave as images.

        Returns:
            The program's bare name and the words; None stands where the images stood.
        """
        words: list[str | None] = list(shlex.split(self.command(argv, without)))
        for place, word in enumerate(words):
            if word is not None and place and word in (images, f'--img={images}'):
                words[place : place + 1] = [None] if word == images else ['--img', None]
                break
        return tuple(words)

    def _check_list(self, option: str, values: Sequence[object], files: bool) -> None:
        for value in values:
            text = str(value)
            if text == 'none' or text.startswith('demo://') or (os.path.isfile(text) and not files):
                raise InputError(
                    f'{text!r} looks like a positional argument that the list took in',
                    hint=f'put positionals before {option}, or another option between',
                    parameter=option,
                )


class _Versions(argparse.Action):
    """Prints what a fault report needs to say, and ends the command."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str) -> None:
        super().__init__(option_strings, dest=argparse.SUPPRESS, default=argparse.SUPPRESS, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *args: object) -> NoReturn:
        """Prints a line for each package; looks them up without importing them."""
        print('\n'.join(f'{name} {version}' for name, version in versions().items()))
        parser.exit()


class _Completion(argparse.Action):
    """Prints the code that makes a shell complete all commands, and ends the command."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str, metavar: str) -> None:
        super().__init__(option_strings, dest=argparse.SUPPRESS, default=argparse.SUPPRESS, help=help, metavar=metavar)

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, *_: object) -> None:
        """Prints it for the shell that is given."""
        from vistool.commands.completion import registration

        shells = str(self.metavar).split('|')
        if values not in shells:
            raise argparse.ArgumentError(self, f'unknown shell {values!r}')
        print(registration(values, Path(parser.prog).stem))
        parser.exit()


def _long(action: argparse.Action) -> str:
    """An option's first long name, or a positional's."""
    name = next((each for each in action.option_strings if each.startswith('--')), None)
    return name or (action.metavar if isinstance(action.metavar, str) else action.dest)


_MAY_BE_EMPTY = ('title',)
_CALLED = {'model': 'config'}
"""Parameters of Python → those of commands, where these have another name: a command's model comes from a config."""


def whole(text: str) -> int:
    """A whole number of plain digits, as an option's ``type``.

    Raises:
        argparse.ArgumentTypeError: The text is something else.
    """
    if re.fullmatch(r'[+-]?[0-9]{1,18}', text.strip()):
        return int(text)
    raise argparse.ArgumentTypeError(f'{shown(text)} is not a whole number of at most 18 digits')


def real(text: str) -> float:
    """A number of plain digits, as an option's ``type``; what it sets has bounds, which NaN and infinity miss.

    Raises:
        argparse.ArgumentTypeError: The text is something else.
    """
    try:
        if text.isascii():
            return float(text)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f'{shown(text)} is not a number')


def _dashed(word: str) -> str:
    if not word.startswith('--'):
        return word
    name, equals, value = word.partition('=')
    return name.replace('_', '-') + equals + value


def _commands_with(option: str) -> list[str]:
    """The commands that have an option of this name: in their own source, or by a function of this module.

    The source is searched, so that an error does not import all the other commands.
    """
    declared = re.compile(rf"add_argument\(\s*(?:'[^']*',\s*)*'{re.escape(option)}'")
    here = Path(__file__)
    functions = re.split(r'^def (\w+)', here.read_text(encoding='utf-8'), flags=re.M)
    shared = [name for name, body in zip(functions[1::2], functions[2::2], strict=True) if declared.search(body)]
    sources = {file.stem: file.read_text(encoding='utf-8') for file in sorted(here.parent.glob('[bv]*_*.py'))}
    return [
        command
        for command, source in sources.items()
        if declared.search(source) or any(f'options.{name}(' in source for name in shared)
    ]


T = TypeVar('T')


def run_spec(args: argparse.Namespace, tool: str, analysis: MapAnalysis, style: Style | None = None) -> RunSpec:
    """The run that parsed arguments ask for.

    Args:
        args: With the options of :func:`add_model`, :func:`add_compare`, :func:`add_inputs`, :func:`add_picture`,
            :func:`add_batch` and :func:`add_run`.
        tool: The command's name.
        analysis: What to do with the images.
        style: How results are drawn; None: as the picture options say.
    """
    from vistool.runs.spec import Execution, RunSpec, Selection

    return RunSpec(
        analysis,
        models_of(args),
        args.images,
        taken(Selection, args),
        taken(Execution, args),
        output_of(args, style),
        args.seed,
        tool,
        args.command,
        getattr(args, 'masks', None),
        args.again,
    )


def taken(kind: type[T], args: argparse.Namespace, **more: Any) -> T:
    """A dataclass whose fields are arguments of their own names.

    Args:
        kind: The dataclass.
        args: Parsed arguments; fields without one keep their default.
        more: Fields that go before the arguments.
    """
    names = [each.name for each in dataclasses.fields(kind)]  # type: ignore[arg-type]
    return kind(**{name: getattr(args, name) for name in names if hasattr(args, name)} | more)


def models_of(args: argparse.Namespace) -> Models:
    """The models that arguments name."""
    from vistool.data.pipelines import parse_files
    from vistool.runs.spec import Models, ModelSpec

    compare = []
    for words in args.compare:
        if len(words) > 2:
            raise InputError(
                f'{" ".join(words)!r}: {counted(len(words), "word")}',
                accepted='CONFIG, or CONFIG CHECKPOINT',
                hint=f'put positionals before {param("compare")}',
                parameter='compare',
            )
        compare.append(ModelSpec(*words))
    return taken(
        Models,
        args,
        first=ModelSpec(args.config, args.checkpoint),
        compare=tuple(compare),
        options=config_options(args.options),
        files=parse_files(args.files),
        names=tuple(getattr(args, 'names', ())),
    )


def output_of(args: argparse.Namespace, style: Style | None = None) -> Output:
    """What arguments ask to be written."""
    from vistool.runs.spec import Output

    more: dict[str, Any] = {'style': style or style_of(args)}
    if getattr(args, 'gallery', None) is not None:
        more['gallery'] = tuple(args.gallery)
    if hasattr(args, 'backends'):
        more['backends'] = tuple(args.backends)
    return taken(Output, args, **more)


def style_of(args: argparse.Namespace, **more: Any) -> Style:
    """The style that the picture options ask for.

    Args:
        args: Parsed arguments.
        more: Fields that go before the arguments.
    """
    from vistool.visualization.style import Style

    fields: dict[str, Any] = {'width': int(args.width) if re.fullmatch('[0-9]{1,9}', args.width or '') else args.width}
    alpha = getattr(args, 'alpha', None)
    if alpha is not None and alpha != 'heat':
        try:
            fields['alpha'] = float(alpha)
        except ValueError:
            raise InputError(f'{alpha!r} is not an opacity', accepted='0 to 1, or heat', parameter='alpha') from None
    for name in ('arrangement', 'row_titles', 'column_titles'):
        if getattr(args, name, None):
            fields[name] = tuple(getattr(args, name))
    return taken(Style, args, **{**fields, **more})


def config_options(pairs: Sequence[str]) -> Mapping[str, Any]:
    """``K=V`` pairs read as OpenMMLab's tools read them.

    Raises:
        InputError: If one is not a pair.
    """
    if not pairs:
        return {}
    from mmengine.config import DictAction

    for pair in pairs:
        if '=' not in pair or pair.startswith('='):
            raise InputError(
                f'{pair!r} is not KEY=VALUE', accepted='model.backbone.depth=18 data.x="[a,b]"', parameter='options'
            )
    reader = argparse.ArgumentParser(add_help=False)
    reader.add_argument('--cfg-options', nargs='+', action=DictAction)
    try:
        options: Mapping[str, Any] = reader.parse_args(['--cfg-options', *pairs]).cfg_options
    except RecursionError as error:  # mmengine's reader never ends at dict(…) within a list
        raise InputError(
            f'{" ".join(pairs)!r} holds a dict',
            accepted='numbers, words, lists and tuples',
            hint="write it into a config with _base_ = 'the other one'",
            parameter='options',
        ) from error
    except (ValueError, AssertionError, SyntaxError) as error:
        raise InputError(f'{" ".join(pairs)!r} cannot be read: {error}', parameter='options') from error
    return options


def add_images(parser: Parser, *, datasets: bool = True) -> None:
    """``img``; ``datasets``: also those of the config."""
    every = 'image file, folder, quoted glob, .txt or .csv list, - (a list on stdin), or @train, @val, @test'
    files = 'image file, folder, quoted glob, .txt or .csv list of paths, or - (a list on stdin)'
    parser.add_argument('images', metavar='img', help=every if datasets else files)


def add_model(parser: Parser, *, checkpoint: bool = True) -> None:
    """``config`` and ``checkpoint``."""
    parser.add_argument(
        'config',
        help='config file, vistool::PATH, mmpretrain::PATH, model name, timm::NAME, torchvision::NAME, hf::FOLDER, or '
        'a run directory (work_dirs/exp)',
    )
    if checkpoint:
        parser.add_argument(
            'checkpoint',
            nargs='?',
            help="path, URL, demo://NAME, or none (random weights); default: the run directory's, else the config's",
        )


def add_picture(parser: Parser, *, maps: bool = True, tiles: bool = True) -> None:
    """Where pictures go and how they look; ``maps``: also how heat maps are colored; ``tiles``: and laid out."""
    group = parser.add_argument_group('picture')
    group.add_argument(
        '-o', '--out', '--save-path', '--out-dir', '--output-dir', dest='out', metavar='PATH',
        help='a file (png, jpg, webp, pdf, svg), else a folder; default: work_dirs/<config>/<command>/',
    )  # fmt: skip
    if tiles:
        group.add_argument(
            '--layout',
            default='grid',
            metavar='grid|overlay',
            help="titled figure, or the bare overlay at the network's size",
        )
    add_width(group)
    add_display(group)
    if maps:
        _add_maps(group)
    if tiles:
        group.add_argument(
            '--panels',
            metavar='DIR',
            help='write each tile untitled as well, at native resolution, and figure.tex, which arranges them',
        )
        size = "height of the panels in pixels, or W*H; default: the photo's own, of several photos that of the first"
        group.add_argument('--panel-size', type=_panel_size, metavar='H|W*H', help=size)
    group.add_argument('--save-raw', action='store_true', help='write the numbers beside the picture (.npz)')
    group.add_argument('--show', action='store_true', help='open a window as well')


def _panel_size(text: str) -> int | tuple[int, int]:
    """``480`` or ``640*480``."""
    sides = tuple(whole(side) for side in re.split(r'[*x×]', text))
    if len(sides) > 2:
        raise argparse.ArgumentTypeError(f'{shown(text)} is not H or W*H')
    return sides[0] if len(sides) == 1 else (sides[0], sides[1])


def add_width(group: argparse._ArgumentGroup) -> None:
    """The size of pictures."""
    group.add_argument(
        '--width', metavar='W', help='column (3.25 in), text (6.875 in), 5.5in, 14cm, …, screen, or pixels'
    )
    group.add_argument('--dpi', type=whole, default=300, help='of pictures for paper (default: 300)')
    fonts = "'Times New Roman', CM, … or a font file (default: DejaVu Sans)"
    group.add_argument('--font', metavar='NAME', help=fonts)
    group.add_argument('--font-size', type=real, metavar='PT', help='of titles (default: 7 on paper, 9 on the screen)')


def add_display(group: argparse._ArgumentGroup) -> None:
    """How images that are not photos of 8 bits are shown; the network gets the same."""
    shown = 'auto (default), LO,HI or P%%,Q%%: values shown as black and white, where a file is not an 8-bit photo'
    group.add_argument('--display-range', metavar='auto|LO,HI|P,Q', help=shown)
    group.add_argument('--bands', metavar='R,G,B', help='bands shown as red, green, blue (4,3,2), or one as gray')
    group.add_argument('--axes', metavar='HWC|CHW', help='of arrays in files; default: as the network declares')


def _add_maps(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        '--scale',
        metavar='each|shared|percentile|box',
        help='color scale of each map, one for all, without outliers, or up to the largest value in the box',
    )
    group.add_argument('--colormap', metavar='NAME', help='any matplotlib color map')
    group.add_argument('--alpha', metavar='A|heat', help='weight of the colors, 0 to 1; heat: transparent where cold')
    group.add_argument('--colorbar', action='store_true', default=None, help='draw color bars')
    group.add_argument('--interpolation', metavar='nearest|bilinear|bicubic', help='how maps are enlarged')
    group.add_argument('--view', metavar='original|network', help='draw on the whole file, or on what the network saw')
    group.add_argument('--sheet', metavar='FILE', help='put all images of the run on pages as well')
    group.add_argument('--sheet-images', default='rows', metavar='rows|columns', help='of the sheet (default: rows)')
    titles = 'what the rows are called, from the top; with --sheet those of the sheet'
    group.add_argument('--row-titles', nargs='+', default=(), metavar='TEXT', help=titles)
    titles = 'what the columns of maps are called, from the left'
    group.add_argument('--column-titles', nargs='+', default=(), metavar='TEXT', help=titles)


def add_run(parser: Parser, *, model: bool = True) -> None:
    """How the command runs; without a ``model`` there is no device and no checkpoint to choose."""
    group = parser.add_argument_group('run')
    if model:
        group.add_argument('--device', default='cpu', help='cpu (default), cuda:0, …')
    group.add_argument('--seed', type=whole, default=0, help='of random transforms and random weights (default: 0)')
    add_config_options(group)
    if model:
        group.add_argument('--trust-checkpoint', action='store_true', help="let the checkpoint's pickle run code")
    add_anonymous(group)
    add_logging(parser, group)


def add_config_options(group: argparse._ArgumentGroup) -> None:
    """Changes to the config."""
    group.add_argument(
        '--cfg-options', dest='options', nargs='+', default=[], metavar='K=V', help='changes to the config'
    )


def add_anonymous(group: argparse._ArgumentGroup) -> None:
    """``--anonymous``: for supplements of papers under review."""
    told = 'keep names of users and machines, URLs and outside folders out of files'
    group.add_argument('--anonymous', action='store_true', help=told)


def add_logging(parser: Parser, group: argparse._ArgumentGroup) -> None:
    """What is said on stderr."""
    group.add_argument('--log-level', default='info', metavar='debug|info|warning|error', help='default: info')
    group.add_argument('--debug', action='store_true', help='show tracebacks')
    parser.add_argument('--not-show', action='store_true', help=argparse.SUPPRESS)  # of older tools; the default here


def add_metrics(parser: Parser) -> None:
    """What is measured of each map, and how."""
    group = parser.add_argument_group('metrics')
    group.add_argument(
        '--metrics',
        nargs='+',
        default=[],
        metavar='NAME',
        help='numbers under each map: insertion, deletion, road, drop, increase, sparseness, sensitivity; '
        'with boxes or masks: energy, pointing, iou, bestiou',
    )
    group.add_argument(
        '--protocol',
        metavar='vistool|rise|gradcam|torchcam|quantus',
        help='how pixels are removed (default: vistool)',
    )
    group.add_argument(
        '--steps', type=whole, metavar='N', help="of the insertion and deletion curves (default: the protocol's, 28)"
    )
    group.add_argument(
        '--masks',
        metavar='DIR',
        help="where the object is: a mask of each image's stem, nonzero inside; default: boxes or masks of the dataset",
    )
    group.add_argument(
        '--tolerance', type=whole, metavar='PX', help='of the pointing game, around the mask (default: 15)'
    )
    group.add_argument(
        '--iou-threshold',
        type=real,
        metavar='T',
        help='of iou, a share of the maximum (default: 0.5)',
    )


def protocol_of(args: argparse.Namespace) -> str | Protocol:
    """How metrics are measured: a protocol by its name, with what the arguments change of it.

    Raises:
        InputError: There is no such protocol, a value is not accepted, or no metric takes it.
    """
    _refuse_unused(args)
    changed = {'steps': args.steps, 'tolerance': args.tolerance, 'threshold': args.iou_threshold}
    given = {name: value for name, value in changed.items() if value is not None}
    if not given:
        return str(args.protocol or 'vistool')
    from vistool.metrics import find_protocol

    protocol = find_protocol(args.protocol or 'vistool')
    with naming('iou_threshold', 'threshold'):
        return dataclasses.replace(protocol, **given)


_TAKEN_BY = {'steps': ('insertion', 'deletion'), 'tolerance': ('pointing',), 'iou_threshold': ('iou',)}
"""Options of metrics → the metrics that take them."""


def _refuse_unused(args: argparse.Namespace) -> None:
    """Refuses what no metric that is asked for takes; metrics of the user's own may take anything."""
    given = [name for name in ('protocol', *_TAKEN_BY) if getattr(args, name) is not None]
    if given and not args.metrics:
        raise InputError(
            'nothing is measured', hint=f'name metrics with {param("metrics")}, or leave it out', parameter=given[0]
        )
    if not given:
        return
    from vistool.metrics import find_metrics

    try:
        measured = find_metrics(args.metrics)
    except InputError:  # of the user's own, or refused later
        return
    for name in given:
        takers = _TAKEN_BY.get(name, ())
        if takers and not any(each in measured for each in takers):
            raise InputError(
                'no metric takes it',
                accepted=f'{" or ".join(takers)} among {param("metrics")}',
                hint='leave it out',
                parameter=name,
            )


def add_compare(parser: Parser) -> None:
    """Other models beside the first."""
    parser.add_argument(
        '--compare',
        nargs='+',
        action='append',
        default=[],
        metavar='CONFIG',
        help='CONFIG [CHECKPOINT]: the same from another model or checkpoint beside it; repeatable',
    )
    parser.add_argument(
        '--names', nargs='+', default=[], metavar='NAME', help='what the compared models are called, the first included'
    )


def add_inputs(parser: Parser) -> None:
    """Files of a network with several inputs."""
    group = parser.add_argument_group('several inputs (for configs with "inputs")')
    group.add_argument(
        '--input',
        dest='files',
        nargs='+',
        default=[],
        metavar='NAME=PATH',
        help='a file for an input, or a folder of files',
    )
    group.add_argument('--draw-on', metavar='NAME', help='the input to draw maps on; default: the first with places')


def add_targets(group: argparse._ArgumentGroup, text: str) -> None:
    """``--target-category``: the classes that are explained."""
    group.add_argument('--target-category', dest='targets', nargs='+', default=[], metavar='CLASS', help=text)


def add_score_sign(group: argparse._ArgumentGroup) -> None:
    """``--score-sign``: the evidence for the targets, or against them."""
    group.add_argument('--score-sign', default='+', metavar='+|-', help='-: the evidence against each target')


def add_outputs(parser: Parser) -> None:
    """Which output of the network holds the scores, and what they mean."""
    group = parser.add_argument_group('output of the network (found by looking at the model; these override)')
    group.add_argument('--output', metavar='NAME', help='the tensor with the scores: logits, 1, heads.main')
    group.add_argument(
        '--activation',
        metavar='auto|softmax|sigmoid|none',
        help='classes, independent labels (of one number: two classes), or values as they are',
    )
    names = "the names of the outputs, one a line; default: the checkpoint's, else the dataset's"
    group.add_argument('--classes-file', metavar='FILE', help=names)


def add_layers(group: argparse._ArgumentGroup, text: str, *aliases: str) -> None:
    """``--target-layers``, and the other names that a command knows it by."""
    group.add_argument('--target-layers', *aliases, dest='layers', nargs='+', default=[], metavar='LAYER', help=text)


def add_cam_layers(group: argparse._ArgumentGroup) -> None:
    """Of which layers CAM is made, and what becomes of their channels."""
    add_layers(group, 'such as backbone.layer4[-1]; several are fused; default: chosen for the network')
    group.add_argument(
        '--eigen-smooth', action='store_true', help='first principal component instead of the channel sum'
    )


def add_tokens(parser: Parser) -> None:
    """How a layer's output is laid out."""
    group = parser.add_argument_group('layout of tokens (found by looking at the model; these override)')
    group.add_argument('--vit-like', dest='tokens', action='store_true', help='the layers give tokens (B, L, C)')
    group.add_argument(
        '--num-extra-tokens',
        dest='extra_tokens',
        type=_token_counts,
        metavar='N[,M]',
        help='N tokens before the grid (0 is a value), and M after it',
    )


def _token_counts(text: str) -> int | tuple[int, ...]:
    """``'1'`` or ``'1,0'``."""
    try:
        counts = tuple(whole(count) for count in text.split(','))
    except argparse.ArgumentTypeError as error:
        accepted = 'accepted: how many come before the grid (1), or before and after it (1,0)'
        raise argparse.ArgumentTypeError(f'{shown(text)} is not a number of tokens; {accepted}') from error
    return counts if len(counts) > 1 else counts[0]


def add_batch(parser: Parser) -> None:
    """Many images: which of them, how many at once, in which processes, and what is kept of the run."""
    add_selection(parser)
    group = parser.add_argument_group('many images')
    group.add_argument('--batch-size', type=whole, default=8, metavar='N', help='images per forward (default: 8)')
    group.add_argument(
        '--workers', type=whole, default=2, metavar='N', help='threads that read and that write (default: 2)'
    )
    add_amp(group)
    group.add_argument('--resume', action='store_true', help='continue the run in the output folder')
    group.add_argument('--overwrite', action='store_true', help='start again, whatever the output folder holds')
    group.add_argument(
        '--gallery', nargs='*', metavar='RUN', help='a web page over the run; other runs (folders) stand beside it'
    )
    group.add_argument(
        '--embedding', metavar='PATH', help="a map of the images on that page: vis_tsne's output folder, or its table"
    )
    group.add_argument(
        '--vis-backend',
        dest='backends',
        nargs='+',
        default=[],
        metavar='NAME',
        help='pictures go there too: tensorboard, wandb, …',
    )
    group.add_argument(
        '--launcher', default='none', metavar='none|pytorch|slurm', help='what started the processes of this run'
    )
    group.add_argument('--local-rank', type=whole, default=0, help=argparse.SUPPRESS)  # some launchers add it
    group.add_argument(
        '--deterministic', action='store_true', help='the same bytes however many processes and interruptions; slower'
    )


def add_amp(group: argparse._ArgumentGroup) -> None:
    """``--amp``: whether networks run in half precision."""
    group.add_argument('--amp', action='store_true', help='mixed precision: fp16 on a GPU, bf16 on the CPU')


def add_selection(parser: Parser) -> None:
    """Which of the images are taken."""
    group = parser.add_argument_group('which images')
    group.add_argument(
        '--indices', nargs='+', default=[], metavar='I', help='their places: 7, -1, 10-19 (with 19), 10:19, -5:'
    )
    group.add_argument('--classes', nargs='+', default=[], metavar='CLASS', help='of a dataset: ids or names')
    group.add_argument('--per-class', type=whole, metavar='N', help='of a dataset: N of each class, drawn with --seed')
    group.add_argument('--only', metavar='wrong|right|uncertain', help='by what the model predicts')
    group.add_argument('--max-samples', type=whole, metavar='N', help='N of them, drawn with --seed')
