"""A dataset as its pipeline feeds it to the network, sample by sample and as a whole."""
