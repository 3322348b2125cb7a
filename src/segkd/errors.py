"""Exceptions that a command prints as one sentence, each with its exit code."""


class UserError(Exception):
    """A user's mistake; the message says what was given, what was expected, and what to do.

    Commands print the text without a traceback, and exit with code 2.
    """


class CheckFailed(Exception):
    """A result that is not good enough; the message says which, by how much, and what happened to it.

    Commands print the text without a traceback, and exit with code 1.
    """
