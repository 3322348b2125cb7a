"""`python -m segkd.evaluate`."""

from segkd.cli.launch import launch

if __name__ == "__main__":
    launch("evaluate")
