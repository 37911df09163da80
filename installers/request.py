"""One request to the agent, a JSON object, and what may be asked of its fields."""

from __future__ import annotations

import base64
import binascii
from typing import Any

REQUIRED = object()

Request = dict[str, Any]


class BadRequest(Exception):
    """A request that makes no sense; its text is the answer's ``error``."""


def field(request: Request, name: str, kind: Any, default: Any = REQUIRED) -> Any:
    """A field of a request, of the type (or types) it must have; null is the default."""
    value = request.get(name)
    if value is None:
        if default is REQUIRED:
            raise BadRequest(f"{request.get('op')}: {name!r} is missing")
        return default
    # true is an int to Python, and no number of seconds to us.
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise BadRequest(f"{request.get('op')}: {name!r} cannot be {value!r:.80}")
    return value


def decoded(text: str, name: str) -> bytes:
    """The bytes of a field in base64; BadRequest names it where it is none."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadRequest(f"{name!r} is not base64: {error}") from None
