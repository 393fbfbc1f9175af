# A network of three inputs, by name. Each has a pipeline: on the main image, or on a file that --input NAME=PATH gives.
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
