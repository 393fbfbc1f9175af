"""A run of vis_featmap: what is written beside the figures, and what is one over all images."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mmengine.dist import is_main_process

from vistool import commands as cli
from vistool.analyses.featmap import FeatureMaps
from vistool.analyses.featmap.pca import basis_bytes, read_basis
from vistool.analyses.featmap.statistics import Statistics
from vistool.data.pipelines import parse_files
from vistool.data.samples import Sample
from vistool.errors import InputError, param
from vistool.models.configs import resolve
from vistool.models.model import Model, build_module, find_device
from vistool.network.features import Feature
from vistool.network.stages import module_tree
from vistool.runs.checks import refuse_parts
from vistool.runs.heatmaps import Walk, draw_heatmaps
from vistool.runs.loading import find_items, read_item
from vistool.visualization.channels import ARGUMENT, write_channels
from vistool.visualization.files import check_folder, is_file, safe_name, write_file
from vistool.visualization.visualizer import save


class Run:
    """One run of the command.

    Args:
        args: Parsed arguments.

    Raises:
        InputError: If options are unknown or contradict each other, or nothing can be written where they say.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        if args.overlay:
            args.alpha = args.alpha or '0.5'
            args.interpolation = args.interpolation or 'bilinear'
        self.style = cli.style_of(args)
        self.statistics = Statistics() if args.stats else None
        if args.stats:
            refuse_parts(args, 'stats')
        if args.save_basis:
            if args.channel_reduction != 'pca':
                raise InputError(
                    'is for colours by PCA', hint=f'add {param("reduction", "pca")}', parameter='save_basis'
                )
            check_folder(Path(args.save_basis).parent, 'save_basis')
        if args.load_basis and args.foreground:
            raise InputError('the loaded basis says what foreground is', hint='leave it out', parameter='foreground')
        if args.all_channels:
            check_folder(Path(args.all_channels), ARGUMENT)
        self.analysis = FeatureMaps(
            layers=args.target_layers,
            reduction=args.channel_reduction,
            topk=args.topk,
            criterion=args.topk_by,
            channels=args.channels,
            similar_to=[parse_point(word) for word in args.similar_to],
            foreground=args.foreground,
            basis=read_basis(args.load_basis) if args.load_basis else None,
            extra_tokens=args.num_extra_tokens,
            tokens=args.vit_like or None,
            watchers=[self.see] if args.stats or args.all_channels else [],
        ).checked()

    def draw(self) -> int:
        """Draws all images and writes what was asked for beside them; returns the exit code."""
        args = self.args
        shown = args.channel_reduction or ('' if args.topk or args.channels or args.similar_to else 'mean')
        top = f'top{args.topk}-{args.topk_by}' if args.topk else ''
        kinds = [shown, top, *args.channels, *(f'at-{word}' for word in args.similar_to)]
        choices = (args.target_layers, [kind for kind in kinds if kind], 'foreground' if args.foreground else '')
        code = draw_heatmaps(args, 'vis_featmap', self.analysis, choices, self.settle)
        if self.statistics is not None:
            cli.announce(self.write_statistics())
        return code

    def settle(self, models: list[Model], walk: Walk, count: int) -> FeatureMaps:
        """Fixes layers and basis over the run; keeps the basis where that is asked for."""
        settled = self.analysis.settle(models, walk, count)
        if self.args.save_basis and settled.basis is not None and is_main_process():
            path = Path(self.args.save_basis)
            write_file(path, basis_bytes(settled.basis), 'save_basis')
            cli.announce([path])
        return settled

    def see(self, model: str, samples: Sequence[Sample], features: Sequence[Feature]) -> None:
        """Takes statistics of a batch, and writes every channel."""
        if self.statistics is not None:
            self.statistics.see(model, features)
        if not self.args.all_channels:
            return
        for index, sample in enumerate(samples):
            for feature in features:
                parts = [*([model] if self.args.compare else []), sample.name, feature.name]
                folder = Path(self.args.all_channels).joinpath(*(safe_name(part) for part in parts))
                maps = feature.maps[index].float().cpu().numpy()
                size = (sample.image.shape[0], sample.image.shape[1])
                cli.announce(write_channels(maps, size, self.style, folder, self.args.workers))

    def write_statistics(self) -> list[Path]:
        """The table and its plot, beside the figures."""
        assert self.statistics is not None
        args = self.args
        out = cli.out_path(args, resolve(args.config, cli.config_options(args.cfg_options)).name, 'vis_featmap')
        name = cli.file_name('stats', args.target_layers)
        table = out.with_name(f'{out.stem}_stats.csv') if is_file(out) else out / f'{name}.csv'
        write_file(table, self.statistics.table())
        suffix = out.suffix if is_file(out) else '.png'
        return [table, *save(self.statistics.curves(), table.with_suffix(suffix), self.style)]


def parse_point(word: str) -> tuple[float, float]:
    """``'250,100'`` as numbers.

    Raises:
        InputError: If they are no two numbers.
    """
    try:
        x, y = (float(part) for part in word.split(','))
    except ValueError:
        raise InputError(f'{word!r} is no pixel', accepted='X,Y such as 250,100', parameter='similar_to') from None
    return x, y


def preview(args: argparse.Namespace) -> int:
    """Lists the network's modules with what they give for the first image, on stdout; needs no checkpoint."""
    source = resolve(args.config, cli.config_options(args.cfg_options))
    item = find_items(args.img, source)[0]
    device = find_device(args.device)
    module = build_module(source, args.seed).to(device)
    module.eval()
    model = Model(module, source.name, source.config, device=device)
    model.use_files(parse_files(args.input), args.draw_on)
    inputs = model.batch([read_item(model, item, args.seed)])
    cli.announce(module_tree(model.module, inputs))
    return cli.OK
