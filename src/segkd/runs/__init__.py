"""Folders of runs: their files, records and networks."""
