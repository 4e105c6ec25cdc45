"""The error of asking for a backend that cannot be had."""

from ..support.errors import VGFError


class BackendError(VGFError):
    """An unknown backend, a missing framework, an absent GPU, or settings that contradict."""
