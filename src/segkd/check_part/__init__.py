"""Check which lines of their contract a loss, a network or a dataset keeps."""
