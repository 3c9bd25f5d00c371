"""The exception whose message is for the user and not for a developer."""

SHAPES_NO_ARTEFACT = True


class UserError(Exception):
    """A problem that the user can fix: it is printed as one message without a traceback, with exit status 2.

    The message names the file, the key and the wrong value, and says what to do.
    """
