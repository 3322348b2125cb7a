"""Data sets: one a file, all under the contract of `base`, all served by `datamodule`."""
