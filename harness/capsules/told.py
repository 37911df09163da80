"""What a node is held against where no lab knows: what its own metadata asked of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from installers.config import from_attributes
from installers.errors import NodeError


def expectations(attributes: Mapping[str, str]) -> dict[str, Any]:
    """Keys of a node's ``expect`` that follow from its attributes; those are without secrets.

    Empty where they ask for nothing, or cannot be understood: then checks that need to know do not
    apply, as with any machine that nobody told us of.
    """
    try:
        config = from_attributes(attributes)
    except NodeError:
        return {}
    found: dict[str, Any] = {}
    proxy = config.proxy.http or config.proxy.https
    if proxy is not None:
        found["proxy_url_redacted"] = proxy.without_credentials
        found["auth"] = config.proxy.has_credentials
    if config.secure_boot == "required":
        found["secure_boot"] = True
    return found
