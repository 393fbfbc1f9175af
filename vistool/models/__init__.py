"""From a config to a model: resolving, building, checkpoints, wrappers, class names."""
