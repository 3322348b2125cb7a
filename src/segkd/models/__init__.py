"""Networks: one family a file, all under the contract of `base`."""
