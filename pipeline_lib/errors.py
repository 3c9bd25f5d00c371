"""The one exception that is written for the user rather than for the developer."""

SHAPES_NO_ARTEFACT = True


class UserError(Exception):
    """A problem that the user can mend: printed as one message without a traceback, exit status 2.

    The message names the file, the key and the value at fault, and says what to do.
    """
