"""Score a network on a split of a dataset."""
