"""`python -m segkd.predict`."""

from segkd.cli.launch import launch

if __name__ == "__main__":
    launch("predict")
