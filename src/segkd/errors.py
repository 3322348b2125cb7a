"""The two exceptions with an exit code and a sentence of their own: the user can mend this; this is not good enough."""


class UserError(Exception):
    """A mistake in what was asked for or given: its text says what was given, what was expected and what to do.

    Commands print the text alone, without a traceback, and end with exit code 2.
    """


class CheckFailed(Exception):
    """What was made or looked at is not good enough: its text says what, by how much, and what became of it.

    Commands print the text alone, without a traceback, and end with exit code 1.
    """
