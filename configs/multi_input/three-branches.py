# A network with three named inputs. Each input has its own pipeline, which reads the main image or the file given by
# --input NAME=PATH.
default_scope = 'mmpretrain'
custom_imports = dict(imports=['demo.multi_input.three_branches'])

model = dict(type='mmengine.ThreeBranches', num_classes=3)
load_from = 'demo/multi_input/three_branches.pth'

load = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(64, 64))]
pack = [dict(type='Normalize', mean=[127.5] * 3, std=[127.5] * 3, to_rgb=True), dict(type='PackInputs')]

inputs = dict(
    x_b=dict(pipeline=[*load, dict(type='vistool.LocalBinaryPattern'), *pack]),
    x_f=dict(pipeline=[*load, dict(type='vistool.FFTMagnitude'), *pack]),
    x_p=dict(pipeline=[*load, *pack]),
)
