"""Export a student to formats that run without segkd."""
