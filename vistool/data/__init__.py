"""Images, pipelines, transforms and their geometry, and datasets."""
