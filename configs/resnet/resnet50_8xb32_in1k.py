# ResNet-50 on ImageNet, unchanged, under the name that mmpretrain's documentation uses.
_base_ = 'mmpretrain::resnet/resnet50_8xb32_in1k.py'
