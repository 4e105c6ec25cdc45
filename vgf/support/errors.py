"""The exception for mistakes that a user can correct: its message names the way out."""


class VGFError(Exception):
    """A wrong request or wrong input. Commands print it as one line and exit with status 2."""
