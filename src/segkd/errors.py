"""The two exceptions with an exit code and a sentence of their own."""


class UserError(Exception):
    """A mistake in what was asked for or given: what was given, what was expected, and what to do.

    Commands print the text without a traceback, and exit with code 2.
    """


class CheckFailed(Exception):
    """A result that is not good enough: what, by how much, and what became of it.

    Commands print the text without a traceback, and exit with code 1.
    """
