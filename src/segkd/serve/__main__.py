"""`python -m segkd.serve`."""

from segkd.cli.launch import launch

if __name__ == "__main__":
    launch("serve")
