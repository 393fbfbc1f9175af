# DeiT-Ti on ImageNet, unchanged.
_base_ = 'mmpretrain::deit/deit-tiny_4xb256_in1k.py'
