"""Every config that mmpretrain installs, drawn or refused in one line with its reason."""

import re

import pytest

from vistool.commands.vis_lr import main
from vistool.models.configs import package_folder

# The configs that train, and cannot be drawn: each with what the one line says.
REFUSED = {
    'blip/blip-base_8xb32_caption.py': 'neither by_epoch nor type',
    'blip/blip-base_8xb32_caption_flickr30k.py': 'neither by_epoch nor type',
    'blip2/blip2-opt2.7b_8xb16_gqa.py': 'neither by_epoch nor type',
    'blip2/blip2-opt2.7b_8xb16_vqa.py': 'neither by_epoch nor type',
    'byol/benchmarks/mask-rcnn_r50-c4_ms-1x_coco.py': 'needs the package mmdet',
    'byol/benchmarks/mask-rcnn_r50_fpn_ms-1x_coco.py': 'needs the package mmdet',
    'eva/eva-mae-style_vit-base-p16_16xb256-coslr-400e_in1k.py': 'needs a download',
    'itpn/itpn-clip-b_hivit-base-p16_8xb256-amp-coslr-300e_in1k.py': 'needs a download',
    'itpn/itpn-clip-b_hivit-base-p16_8xb256-amp-coslr-800e_in1k.py': 'needs a download',
    'levit/deploy/levit-128_8xb256_in1k.py': 'cannot be built here .*switch_to_deploy',
    'levit/deploy/levit-128s_8xb256_in1k.py': 'cannot be built here .*switch_to_deploy',
    'levit/deploy/levit-192_8xb256_in1k.py': 'cannot be built here .*switch_to_deploy',
    'levit/deploy/levit-256_8xb256_in1k.py': 'cannot be built here .*switch_to_deploy',
    'levit/deploy/levit-384_8xb256_in1k.py': 'cannot be built here .*switch_to_deploy',
    'milan/milan_vit-base-p16_16xb256-amp-coslr-400e_in1k.py': 'needs a download',
    'replknet/deploy/replknet-31B-deploy_32xb64_in1k-384px.py': 'lazy_import',
    'replknet/deploy/replknet-31B-deploy_32xb64_in1k.py': 'lazy_import',
    'replknet/replknet-31B_32xb64_in1k-384px.py': 'lazy_import',
    'replknet/replknet-31B_32xb64_in1k.py': 'lazy_import',
    'swin_transformer_v2/swinv2-base-w12_8xb128_in21k-192px.py': 'KeyError: test_pipeline',
    'swin_transformer_v2/swinv2-large-w12_8xb128_in21k-192px.py': 'KeyError: test_pipeline',
    'vision_transformer/vit-base-p16_4xb544-ipu_in1k.py': 'before MMEngine',
}
NO_TRAINING = [
    'blip/blip-base_8xb32_nocaps.py',
    'chinese_clip/cn-clip_resnet50_zeroshot-cls_cifar100.py',
    'chinese_clip/cn-clip_vit-base-p16_zeroshot-cls_cifar100.py',
    'chinese_clip/cn-clip_vit-huge-p14_zeroshot-cls_cifar100.py',
    'chinese_clip/cn-clip_vit-large-p14_zeroshot-cls_cifar100.py',
    'clip/clip_vit-base-p16_zeroshot-cls_cifar100.py',
    'clip/clip_vit-base-p16_zeroshot-cls_in1k.py',
    'clip/clip_vit-large-p14_zeroshot-cls_cifar100.py',
    'clip/clip_vit-large-p14_zeroshot-cls_in1k.py',
    'clip/vit-large-p14_headless.py',
    'dinov2/vit-base-p14_dinov2-pre_headless.py',
    'dinov2/vit-giant-p14_dinov2-pre_headless.py',
    'dinov2/vit-large-p14_dinov2-pre_headless.py',
    'dinov2/vit-small-p14_dinov2-pre_headless.py',
    'eva/eva-g-p14_headless.py',
    'eva/eva-g-p16_headless.py',
    'eva/eva-l-p14_headless.py',
    'eva02/eva02-base-p14_headless.py',
    'eva02/eva02-large-p14_headless.py',
    'eva02/eva02-small-p14_headless.py',
    'eva02/eva02-tiny-p14_headless.py',
    'flamingo/flamingo_fewshot_caption.py',
    'flamingo/flamingo_fewshot_vqa.py',
    'flamingo/flamingo_zeroshot_caption.py',
    'flamingo/flamingo_zeroshot_vqa.py',
    'glip/glip-l_headless.py',
    'glip/glip-t_headless.py',
    'llava/llava-7b-v1.5_caption.py',
    'llava/llava-7b-v1.5_vqa.py',
    'llava/llava-7b-v1_caption.py',
    'ofa/ofa-base_finetuned_caption.py',
    'ofa/ofa-base_finetuned_refcoco.py',
    'ofa/ofa-base_finetuned_vqa.py',
    'ofa/ofa-base_zeroshot_vqa.py',
    'ofa/ofa-large_zeroshot_vqa.py',
    'otter/otter-9b_caption.py',
    'otter/otter-9b_vqa.py',
    'resnest/_randaug_policies.py',
    'sam/vit-base-p16_sam_headless.py',
    'sam/vit-huge-p16_sam_headless.py',
    'sam/vit-large-p16_sam_headless.py',
]


def configs():
    root = package_folder('mmpretrain') / 'configs'
    return {str(path.relative_to(root)): path for path in sorted(root.rglob('*.py')) if '_base_' not in path.parts}


@pytest.mark.slow
@pytest.mark.parametrize('part', range(8))
def test_all_configs_are_drawn_or_refused(capsys, tmp_path, part):
    found = configs()
    assert {*REFUSED, *NO_TRAINING} <= set(found)
    wrong = []
    for name in list(found)[part::8]:
        target = tmp_path / 'x.png'
        code = main([str(found[name]), '--dataset-size', '1281167', '--ngpus', '8', '-o', str(target)])
        lines = capsys.readouterr().err.strip().splitlines()
        errors = [line for line in lines if line.startswith('error:')]
        reason = REFUSED.get(name) or ('trains nothing' if name in NO_TRAINING else None)
        if reason is None:
            good = code == 0 and not errors and target.stat().st_size > 5000
        else:
            good = (
                code == 2
                and len(errors) == 1
                and lines[-1] == errors[0]
                and re.search(reason, errors[0])
                and not target.exists()
            )
        if not good or any('Traceback' in line for line in lines):
            wrong.append((name, code, lines[-1:]))
        target.unlink(missing_ok=True)
    assert not wrong, '\n'.join(map(str, wrong))
