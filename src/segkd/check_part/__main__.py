"""`python -m segkd.check_part`."""

from segkd.cli.launch import launch

if __name__ == "__main__":
    launch("check_part")
