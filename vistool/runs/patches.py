"""A run of vis_patches: images cut into tokens, drawn and written one by one."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vistool.analyses.patches import Patches
from vistool.data.samples import find_inputs
from vistool.errors import InputError, check_seed, naming
from vistool.models.configs import resolve
from vistool.models.model import Model, build_module, find_device
from vistool.runs.run import Callbacks
from vistool.runs.spec import Failure, Images, Output, PathLike, RunSummary, keep_images, log_failures
from vistool.visualization.files import file_name
from vistool.visualization.visualizer import Visualizer


@dataclass(frozen=True)
class PatchesSpec:
    """Which images are cut into patches, and what is written.

    Attributes:
        analysis: How they are cut and what is shown.
        images: The images.
        config: The model whose patches are shown; None: ``analysis`` has the sizes. Weights are not needed.
        options: Changes to the config.
        device: Where the model runs.
        output: What is written.
        choices: What was chosen, for file names.
        seed: Of random transforms.
        command: The command line, for provenance.
    """

    analysis: Patches
    images: Images
    config: PathLike | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    device: str = 'cpu'
    output: Output = field(default_factory=Output)
    choices: tuple[object, ...] = ()
    seed: int = 0
    command: str = ''

    def __post_init__(self) -> None:
        check_seed(self.seed)


def draw_patches(spec: PatchesSpec, callbacks: Callbacks | None = None) -> RunSummary:
    """Cuts and draws all images.

    Raises:
        InputError: The images or the model cannot be found, nothing can be written, or the only image cannot be cut.
    """
    callbacks, started = callbacks or Callbacks(), time.perf_counter()
    items = find_inputs(spec.images)
    model = _model(spec) if spec.config else None
    if model is not None:
        model.use_display(spec.analysis.display)
    output = spec.output
    out = output.path(model.name if model else 'patches', 'vis_patches')
    keep_images(items, out=out)
    visualizer = Visualizer(out, output.style, save_raw=output.save_raw, show=output.show, panels=output.panels)
    visualizer.keep(item.path for item in items)
    visualizer.check(len(items))
    failures: list[Failure] = []
    files: list[Path] = []
    for index, item in enumerate(items):
        callbacks.progress(index, len(items))
        try:
            with naming('images'):
                if model is None:
                    result = spec.analysis(None, item.path)
                else:
                    sample = item.named(model.read(item.path, seed=spec.seed, index=index))
                    result = spec.analysis(model, sample)
            result = result.with_provenance(command=spec.command, seed=spec.seed)
            paths = visualizer.write(result, file_name(item.name, *spec.choices))
        except InputError as error:
            if len(items) == 1:
                raise
            failures.append(Failure(str(item.path), error))
            continue
        files += paths
        callbacks.written(paths)
    callbacks.progress(len(items), len(items))
    log_failures(failures, len(items))
    done = len(items) - len(failures)
    return RunSummary(out, done, 0, tuple(failures), tuple(files), time.perf_counter() - started)


def _model(spec: PatchesSpec) -> Model:
    """The config's network with random weights: how it cuts does not depend on them."""
    assert spec.config is not None
    device = find_device(spec.device)
    source = resolve(spec.config, spec.options)
    module = build_module(source, spec.seed).to(device)
    module.eval()
    return Model(module, source.name, source.config, device=device)
