"""Watching a network: forwards, captured activations, attention operators, tokens, layers, outputs."""
