"""`python -m segkd.study`."""

from segkd.cli.launch import launch

if __name__ == "__main__":
    launch("study")
