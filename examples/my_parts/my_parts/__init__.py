"""A loss, a dataset, a network, a callback and a logger of one's own, for segkd."""
