"""`python -m segkd.train`."""

from segkd.cli.launch import launch

if __name__ == "__main__":
    launch("train")
