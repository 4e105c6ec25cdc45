"""The one exception for mistakes a user can mend: it names the thing and the way out."""


class VGFError(Exception):
    """A wrong request or a wrong input. Commands print it as one line and exit with status 2."""
