"""Exceptions that a command prints as one sentence, each with its exit code."""


class UserError(Exception):
    """A user's mistake; the message says what was given, what was expected, and what to do.

    Commands print the text without a traceback, and exit with code 2.
    """


class CheckFailed(Exception):
    """A result that is not good enough; the message says which, by how much, and what happened to it.

    Commands print the text without a traceback, and exit with code 1.
    """


def get_first_line(error: Exception) -> str:
    """Return the first line of an error's message without its full stop, or the error's class."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
