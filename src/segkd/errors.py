"""The one exception that means: the user can mend this."""


class UserError(Exception):
    """A mistake in what was asked for or given: its text says what was given, what was expected and what to do.

    Commands print the text alone, without a traceback, and end with exit code 2.
    """
