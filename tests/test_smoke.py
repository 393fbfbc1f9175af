"""Each command once, in this process, on the demo photos: what a first look at a change should see."""

import importlib

import pytest

LITE = 'configs/efficientnet_lite/efficientnet-lite0_in1k.py'
VIT = 'configs/timm/vit_tiny_patch16_224.py'


@pytest.mark.parametrize(
    ('command', 'argv'),
    [
        (
            'vis_cam',
            ['demo/coffee.png', LITE, '--method', 'GradCAM', 'LayerCAM', '--target-category', 'espresso', '281'],
        ),
        ('vis_attention', ['demo/coffee.png', VIT, 'none']),
        ('vis_featmap', ['demo/coffee.png', LITE]),
        ('vis_patches', ['demo/coffee.png', '--patch-size', '64']),
        ('browse_dataset', ['configs/demo_dataset/plain.py', '--indices', '0']),
        ('vis_check', ['demo/coffee.png', LITE, '--checks', 'maps', 'classes']),
        ('vis_lr', ['configs/resnet/resnet50_8xb32_in1k.py', '-d', '1000']),
    ],
)
def test_a_picture(command, argv, tmp_path, capsys):
    main = importlib.import_module(f'vistool.commands.{command}').main
    assert main([*argv, '-o', str(tmp_path / 'out.png')]) == 0
    assert capsys.readouterr().out == f'{tmp_path / "out.png"}\n'
    assert (tmp_path / 'out.png').stat().st_size > 5000
