"""Taking secrets out of whatever is printed, journaled or reported."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

# Credentials in any URL, known to us or not (an old password in a file we replace is not ours).
_USERINFO = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)[^\s/'\"]*@")
HIDDEN = "***"
# Taking a one-letter password out of every word would leave no word: URLs still hide it.
_SHORTEST = 4


def forms(secret: str) -> list[str]:
    """Every way a secret is written in files of ours: raw, percent-encoded, systemd's ``%%``."""
    encoded = quote(secret, safe="")
    every = {secret, encoded, encoded.lower(), quote(secret), encoded.replace("%", "%%")}
    # Longest first: a shorter form may be part of a longer one.
    return sorted((form for form in every if form), key=len, reverse=True)


def redact_text(text: str, secrets: Iterable[str] = ()) -> str:
    """``text`` without the secrets (in any of their forms) and without any URL's credentials."""
    for secret in secrets:
        if len(secret) < _SHORTEST:
            continue
        for form in forms(secret):
            text = text.replace(form, HIDDEN)
    return _USERINFO.sub(rf"\g<scheme>{HIDDEN}@", text)


def redact(value: Any, secrets: Iterable[str] = ()) -> Any:
    """The same for the texts in any JSON-able value; an object's keys are names of ours."""
    known = tuple(secrets)
    if isinstance(value, str):
        return redact_text(value, known)
    if isinstance(value, dict):
        return {str(key): redact(item, known) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [redact(item, known) for item in value]
    return value
