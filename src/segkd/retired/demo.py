"""`python -m segkd.demo`: name the command that replaced it."""

from segkd.cli.commands import refuse_retired_command

refuse_retired_command("demo")
