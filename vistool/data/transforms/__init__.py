"""What a pipeline's transforms do to an image: where its pixels go, and what becomes of their values."""
