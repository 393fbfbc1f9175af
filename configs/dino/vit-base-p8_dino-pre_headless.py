# ViT-B/8 as trained by DINO.
_base_ = 'vit-small-p16_dino-pre_headless.py'

model = dict(backbone=dict(arch='deit-base', patch_size=8))
