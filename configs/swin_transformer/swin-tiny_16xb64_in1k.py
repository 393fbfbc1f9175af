# Swin-T on ImageNet, unchanged.
_base_ = 'mmpretrain::swin_transformer/swin-tiny_16xb64_in1k.py'
