"""The modes of `python -m segkd.benchmark`: each finds something out and returns it as `Findings`."""
