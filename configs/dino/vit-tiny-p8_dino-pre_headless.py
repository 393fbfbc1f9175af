# ViT-Ti/8 as DINO trains it. DINO published no such weights.
_base_ = 'vit-small-p16_dino-pre_headless.py'

model = dict(backbone=dict(arch='deit-tiny', patch_size=8))
