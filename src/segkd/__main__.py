"""`segkd COMMAND …`, or `python -m segkd COMMAND …`; without a command, list them."""

from __future__ import annotations

import runpy
import sys

from segkd import __version__
from segkd.cli.commands import COMMANDS, RETIRED
from segkd.cli.logs import configure_streams
from segkd.config.suggestions import explain_unknown_name


def main() -> None:
    """Run the command that the first argument names, as `python -m segkd.COMMAND` does."""
    configure_streams()
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("--help", "-h"):
        print("segkd COMMAND --help\n")
        print(*(f"  {command:10} {purpose}" for command, purpose in COMMANDS.items()), sep="\n")
    elif name == "--version":
        print(__version__)
    elif name in COMMANDS or name in RETIRED:
        sys.argv[1:] = arguments
        # Lightning starts further processes by the name of the module that is `__main__`.
        runpy.run_module(f"segkd.{name}", run_name="__main__", alter_sys=True)
    else:
        print(f"segkd: {explain_unknown_name('command', name, list(COMMANDS))}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
