"""The command line: Hydra entry point, exit codes and error messages."""
