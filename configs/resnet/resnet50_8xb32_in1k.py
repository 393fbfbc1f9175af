# ResNet-50 on ImageNet, unchanged, under the name used in mmpretrain's documentation.
_base_ = 'mmpretrain::resnet/resnet50_8xb32_in1k.py'
