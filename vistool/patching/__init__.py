"""Cutting images into patches, as the seed of every vision transformer does it, and reading how a model does it."""
