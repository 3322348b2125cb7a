"""A network in a file that runs without segkd, and what runs such files."""
