"""`python -m segkd.report`."""

from segkd.cli.launch import launch

if __name__ == "__main__":
    launch("report")
