"""Completion in the shell, asked as shells ask it; names read from sources are those that are registered."""

import importlib
import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import argcomplete
import pytest

from vistool.commands import completion


@pytest.fixture
def answers(monkeypatch):
    """``line → what may stand in place of its last word``."""

    def ask(line: str) -> list[str]:
        monkeypatch.setenv('_ARGCOMPLETE', '1')
        monkeypatch.setenv('_ARGCOMPLETE_IFS', '\n')
        monkeypatch.setenv('COMP_LINE', line)
        monkeypatch.setenv('COMP_POINT', str(len(line.encode())))
        parser = importlib.import_module(f'vistool.commands.{line.split()[0]}').build_parser()
        output = io.StringIO()
        monkeypatch.setattr(argcomplete.CompletionFinder, '_init_debug_stream', lambda self: None)  # descriptor 9
        completion.complete(parser, output=output, leave=lambda code: None)
        return [word.rstrip() for word in output.getvalue().split('\n') if word]

    return ask


@pytest.mark.parametrize(
    ('line', 'among'),
    [
        ('vis_cam --sc', ['--scale', '--score-sign', '--score-thr']),
        ('vis_cam a.png x.py --scale ', ['each', 'shared', 'percentile', 'box']),
        ('vis_cam a.png x.py --method LayerCAM gradcam', ['GradCAM', 'GradCAM++']),
        ('vis_cam a.png x.py --metrics ins', ['insertion']),
        ('vis_cam a.png x.py --colormap vir', ['viridis', 'viridis_r']),
        ('vis_cam @', ['@train', '@val', '@test']),
        ('vis_cam demo/cof', ['demo/coffee.png']),
        ('vis_cam a.png vistool::scenes/detect', ['vistool::scenes/detector.py']),
        ('vis_cam demo/coffee.png vistool::eff', ['vistool::efficientnet_lite/']),
        ('vis_cam demo/coffee.png mmpretrain::resnet/resnet18_8xb32', ['mmpretrain::resnet/resnet18_8xb32_in1k.py']),
        ('vis_cam demo/coffee.png t', ['timm::', 'torchvision::']),
        ('vis_attention demo/coffee.png timm::vit_tiny_p', ['timm::vit_tiny_patch16_224']),
        ('vis_cam demo/coffee.png torchvision::swin_', ['torchvision::swin_t']),
        ('vis_cam demo/coffee.png hf::demo/sce', ['hf::demo/scenes/']),
        ('vis_cam demo/coffee.png configs/eff', ['configs/efficientnet_lite/']),
        ('vis_cam demo/coffee.png x.py demo://dino', ['demo://dinov2-vit-small-p14']),
        ('vis_cam demo/coffee.png x.py n', ['none']),
        ('vis_cam a.png x.py --compare y.py demo://eff', ['demo://efficientnet-lite0']),
        ('vis_check a.png x.py --checks di', ['difull', 'direction']),
        ('vis_featmap a.png x.py --channel-reduction p', ['pca']),
        ('vis_lr configs/resnet/resnet50_8xb32_in1k.py configs/effi', ['configs/efficientnet_lite/']),
        ('browse_dataset x.py --channel-order ', ['BGR', 'RGB']),
        ('browse_dataset x.py --show-number ', ['all']),
    ],
)  # fmt: skip
def test_a_word_is_completed(line, among, answers):
    assert set(among) <= {word.strip() for word in answers(line)}


@pytest.mark.parametrize('line', ['vis_cam a.png x.py --topk', 'vis_patches a.png --patch-size ', 'vis_cam nowhere/x'])
def test_what_takes_a_number_or_is_not_there_gets_nothing(line, answers):
    assert answers(line) == []


def test_options_are_offered_for_a_dash_only(answers):
    assert not any(word.startswith('-') for word in answers('vis_cam '))
    assert '--method' in answers('vis_cam -')


def test_names_read_from_sources_are_those_that_are_registered():
    import timm
    from torchvision import models

    from vistool.analyses.cam import METHODS
    from vistool.analyses.check import CHECKS
    from vistool.metrics import METRICS
    from vistool.models.checkpoints.demo_weights import _DEMOS

    assert {*completion._methods('')} == {'all', *(method.title for method in METHODS.values())}
    assert {*completion._metrics('')} == {*METRICS}
    assert {*completion._checks('')} == {*CHECKS}
    assert {*completion._checkpoints('')} == {'none', *(f'demo://{name}' for name in _DEMOS)}
    assert completion._models_of('timm') == sorted(timm.list_models())
    modules = (models, models.detection, models.segmentation)
    assert completion._models_of('torchvision') == sorted(name for each in modules for name in models.list_models(each))


@pytest.mark.parametrize('shell', ['bash', 'zsh', 'fish', 'powershell'])
def test_one_line_registers_every_command(shell, capsys):
    from vistool.commands.vis_cam import main

    with pytest.raises(SystemExit) as done:
        main(['--print-completion', shell])
    code = capsys.readouterr().out
    assert done.value.code == 0
    assert all(name in code for name in ('vis_cam', 'vis_attention', 'browse_dataset', 'vistool-demo'))


def test_an_unknown_shell_is_an_error(capsys):
    from vistool.commands.vis_cam import main

    assert main(['--print-completion', 'cmd']) == 2
    assert "unknown shell 'cmd'; accepted: --print-completion bash|zsh|fish|powershell" in capsys.readouterr().err


def test_bash_itself_completes(tmp_path):
    """Bash evaluates the registration, and its own words are handed to the command."""
    command = tmp_path / 'vis_cam'
    root = Path.cwd()
    command.write_text(f'#!{sys.executable}\nfrom vistool.commands.vis_cam import main\nmain()\n')
    command.chmod(0o755)
    script = """
        eval "$(vis_cam --print-completion bash)"
        COMP_LINE='vis_cam demo/coffee.png vistool::efficientnet_lite/efficientnet-lite0_i'
        COMP_POINT=${#COMP_LINE} COMP_TYPE=9
        _python_argcomplete vis_cam
        printf '%s\\n' "${COMPREPLY[@]}"
        complete -p vis_cam
    """
    path = f'{tmp_path}{os.pathsep}{os.environ["PATH"]}'
    done = subprocess.run(
        [shutil.which('bash'), '--norc', '-c', script], env={**os.environ, 'PATH': path, 'PYTHONPATH': str(root)},
        cwd=root, capture_output=True, text=True, check=True,
    )  # fmt: skip
    first, last = done.stdout.splitlines()
    assert first.strip().endswith('efficientnet-lite0_in1k.py') and '_python_argcomplete' in last


def test_zsh_gets_methods_in_the_case_that_was_typed(answers, monkeypatch):
    """It drops what continues other letters: ``GradCAM`` after ``grad``."""
    monkeypatch.setenv('_ARGCOMPLETE_SHELL', 'zsh')
    asked = [{each.rstrip(':') for each in answers(f'vis_cam a.png x.py --method {word}')} for word in ('grad', 'Grad')]
    assert {'gradcam', 'gradcam++'} <= asked[0] and {'GradCAM', 'GradCAM++'} <= asked[1]
