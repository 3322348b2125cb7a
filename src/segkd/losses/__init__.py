"""Loss functions for the student: one loss a file, all under the contract of `base`."""
