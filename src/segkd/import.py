"""`python -m segkd.import`: write labels that an annotation tool exported as a `dataset=folder`; see `import_labels`."""

from segkd.cli.launch import launch

if __name__ == "__main__":
    launch("import")
