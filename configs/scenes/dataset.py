# The generated scenes in demo/scenes with their boxes and masks, through transforms of torchvision.
default_scope = 'mmengine'
custom_imports = dict(imports=['demo.scenes.dataset'])

train_dataloader = dict(
    batch_size=2,
    dataset=dict(
        type='SceneDataset',
        transforms=[
            dict(type='RandomPhotometricDistort', p=1.0),
            dict(type='RandomZoomOut', side_range=(1.0, 1.6), p=1.0),
            dict(type='RandomIoUCrop'),
            dict(type='RandomHorizontalFlip', p=0.5),
            dict(type='Resize', size=(128, 160)),
            dict(type='ClampBoundingBoxes'),
            dict(type='SanitizeBoundingBoxes'),
        ],
    ),
)
