# A network of three inputs, by name. Each has a pipeline: on the main image, or on a file that --input NAME=PATH gives.
default_scope = 'mmpretrain'
custom_imports = dict(imports=['demo.multi_input.three_branches'])

model = dict(type='mmengine.ThreeBranches', num_classes=3)
load_from = 'demo/multi_input/three_branches.pth'

resize = dict(type='Resize', scale=(64, 64))
normalize = dict(type='Normalize', mean=[127.5] * 3, std=[127.5] * 3, to_rgb=True)
pack = dict(type='PackInputs')

inputs = dict(
    x_b=dict(
        pipeline=[dict(type='LoadImageFromFile'), resize, dict(type='vistool.LocalBinaryPattern'), normalize, pack]
    ),
    x_f=dict(pipeline=[dict(type='LoadImageFromFile'), resize, dict(type='vistool.FFTMagnitude'), normalize, pack]),
    x_p=dict(pipeline=[dict(type='LoadImageFromFile'), resize, normalize, pack]),
)
