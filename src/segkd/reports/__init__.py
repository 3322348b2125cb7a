"""What `segkd.compare` and `segkd.report` say of runs, in numbers and pictures."""
