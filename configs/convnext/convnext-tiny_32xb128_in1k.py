# ConvNeXt-T on ImageNet, unchanged.
_base_ = 'mmpretrain::convnext/convnext-tiny_32xb128_in1k.py'
