# ViT-Ti/8 in the style of DINO. DINO did not publish weights for this size.
_base_ = 'vit-small-p16_dino-pre_headless.py'

model = dict(backbone=dict(arch='deit-tiny', patch_size=8))
