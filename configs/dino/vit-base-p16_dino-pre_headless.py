# ViT-B/16 as trained by DINO.
_base_ = 'vit-small-p16_dino-pre_headless.py'

model = dict(backbone=dict(arch='deit-base'))
