"""A web page over a finished run."""
