"""Where a node's attributes come from: the metadata server's real protocol, or a JSON file."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Optional

from installers.errors import ConfigError, NodeError, UnreachableError

_FLAVOR = "Metadata-Flavor"
_ATTRIBUTES = "/computeMetadata/v1/{level}/attributes/?recursive=true"
_INSTANCE_ID = "/computeMetadata/v1/instance/id"
_TOKEN = "/computeMetadata/v1/instance/service-accounts/default/token"  # noqa: S105 - a path
# A node asks while its network comes up; after that the settings stay as they are.
PATIENCE = 20.0
_REMEDY = "check the route to the metadata server, or give --metadata FILE.json"


def load(source: str, *, patience: float) -> dict[str, str]:
    """Merged attributes from a URL or a file: the instance's, and the project's where it has none.

    ``patience``: seconds to keep asking a server that does not answer. Raises ConfigError for
    content, UnreachableError for a server that cannot be asked.
    """
    if source.startswith(("http://", "https://")):
        document: Any = {
            level: {"attributes": _server_attributes(source, level, patience)}
            for level in ("instance", "project")
        }
    else:
        document = _file(source)
    return merge(document, source)


def merge(document: Any, where: str) -> dict[str, str]:
    """``{"instance": {"attributes": {...}}, "project": {...}}`` as one dictionary of texts."""
    merged: dict[str, str] = {}
    if not isinstance(document, dict):
        raise ConfigError("is not a JSON object", where=where)
    unknown = sorted(set(document) - {"instance", "project"})
    if unknown:
        raise ConfigError(
            f"holds {', '.join(unknown)}",
            where=where,
            remedy='write {"instance": {"attributes": {...}}, "project": {"attributes": {...}}}',
        )
    for level in ("project", "instance"):
        part = document.get(level, {})
        attributes = part.get("attributes", {}) if isinstance(part, dict) else None
        if not isinstance(attributes, dict):
            raise ConfigError(f"{level}.attributes is not a JSON object", where=where)
        for key, value in attributes.items():
            if not isinstance(value, str):
                raise ConfigError(
                    f"the value of {key} is not a text", where=where, remedy="quote it"
                )
            merged[key] = value
    return merged


def access_token(server: str) -> Optional[str]:
    """The token of the node's own service account; None when it has none."""
    body = _get(server, _TOKEN, patience=5.0)
    if body is None:
        return None
    token = _json(body, server).get("access_token")
    return token if isinstance(token, str) else None


def instance_id(server: str) -> Optional[str]:
    """The number of the instance, which no other has; None where the server knows none."""
    body = _get(server, _INSTANCE_ID, patience=5.0)
    text = "" if body is None else body.decode("ascii", "replace").strip()
    if body is not None and not text.isalnum():
        raise UnreachableError("did not answer with an id", where=server, remedy=_REMEDY)
    return text or None


def _file(source: str) -> Any:
    try:
        return json.loads(Path(source).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            error.strerror or "cannot be read", where=source, remedy="give a readable file"
        ) from None
    except ValueError as error:
        place = f" at line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise ConfigError(f"is not JSON{place}", where=source) from None


def _server_attributes(server: str, level: str, patience: float) -> dict[str, Any]:
    body = _get(server, _ATTRIBUTES.format(level=level), patience=patience)
    return _json(body, server) if body is not None else {}


def _json(body: bytes, server: str) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise UnreachableError("did not answer with a JSON object", where=server, remedy=_REMEDY)
    return value


def _get(server: str, path: str, *, patience: float) -> Optional[bytes]:
    """Body of a metadata path, None for 404. Never through a proxy, whatever the environment."""
    url = server.rstrip("/") + path
    request = urllib.request.Request(url, headers={_FLAVOR: "Google"})  # noqa: S310 - http(s)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + patience
    pause = 0.1
    while True:
        try:
            with opener.open(request, timeout=max(1.0, min(5.0, patience))) as answer:
                if answer.headers.get(_FLAVOR) != "Google":
                    raise UnreachableError(
                        "is not a metadata server",
                        where=server,
                        remedy=_REMEDY,
                    )
                return bytes(answer.read())
        except NodeError:
            raise
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            why = f"answered {error.code}"
            final = error.code < 500 and error.code != 429
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            why, final = f"does not answer: {reason}", isinstance(error, ValueError)
        if final or time.monotonic() + pause > deadline:
            raise UnreachableError(
                why, where=server, remedy=f"{_REMEDY}; nothing was changed on this node"
            ) from None
        time.sleep(pause)
        pause = min(pause * 2, 2.0)
