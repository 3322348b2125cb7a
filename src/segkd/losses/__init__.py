"""What a student can be taught by: one loss a file, all under the contract of `base`."""
