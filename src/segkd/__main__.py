"""`python -m segkd`: which commands there are."""

from __future__ import annotations

import re
from pathlib import Path


def commands() -> dict[str, str]:
    """Each command and what its module says that it is for."""
    opening = re.compile(r'"""`python -m segkd\.(\w+)`: (.+?)\.?(?:"""|\n)')
    found = (opening.match(path.read_text()) for path in sorted(Path(__file__).parent.glob("*.py")))
    return {match[1]: match[2] for match in found if match}


if __name__ == "__main__":
    print("python -m segkd.COMMAND --help\n")
    print(*(f"  {name:10} {what}" for name, what in commands().items()), sep="\n")
