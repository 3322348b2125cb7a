"""`python -m segkd.ladder`: name the command that replaced it."""

from segkd.cli.commands import refuse_retired_command

refuse_retired_command("ladder")
