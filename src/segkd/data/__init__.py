"""Datasets: one file per dataset, all with the interface of `base`, all loaded by `datamodule`."""
