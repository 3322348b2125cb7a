"""A run that is stopped, and goes on: what it is, the files that hold it, the signal that ends it, and whether it may be continued."""
