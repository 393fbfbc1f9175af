"""What a command does from its arguments to its files: images in, models run, results out."""
