"""An analysis over many images: what is read, in which batches and processes, and what is written."""
