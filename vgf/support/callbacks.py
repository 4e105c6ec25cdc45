"""Functions that a caller may pass in, to be told how long work is going."""

from __future__ import annotations

from collections.abc import Callable

# Called with what is being done, how much of it is done, and how much there is.
Progress = Callable[[str, int, int], None]
# Called with a line for the person at the terminal.
Say = Callable[[str], None]
