"""The error for a backend that is not available."""

from ..support.errors import VGFError


class BackendError(VGFError):
    """An unknown backend, a missing framework, an absent GPU, or settings that contradict."""
