"""What a cluster, a registry or Helm answers when it does not do what was asked."""

from __future__ import annotations

from harness.errors import InfraError, UsageError


class ClusterError(InfraError):
    """The API server could not be asked, or answered with an error. Exit 3.

    ``code`` is HTTP's (0: no answer), ``reason`` the API's word for it.
    """

    def __init__(self, message: str, *, code: int = 0, reason: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.code = code
        self.reason = reason


class NotAllowed(UsageError):
    """401 or 403: the kubeconfig's user may not do this. Exit 2."""
