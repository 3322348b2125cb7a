"""`python -m segkd.benchmark`."""

from segkd.cli.launch import launch

if __name__ == "__main__":
    launch("benchmark")
