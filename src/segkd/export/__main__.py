"""`python -m segkd.export`."""

from segkd.cli.launch import launch

if __name__ == "__main__":
    launch("export")
