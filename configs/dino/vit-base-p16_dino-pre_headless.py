# ViT-B/16 as DINO trains it.
_base_ = 'vit-small-p16_dino-pre_headless.py'

model = dict(backbone=dict(arch='deit-base'))
