"""The stages of `segkd.ladder`."""
