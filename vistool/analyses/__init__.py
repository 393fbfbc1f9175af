"""The analyses, each a dataclass of parameters and a call; ``registry.ANALYSIS_MODULES`` names their modules."""
