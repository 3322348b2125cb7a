"""Networks: one file per family, all with the interface of `base`."""
