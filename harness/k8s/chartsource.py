"""Where a chart comes from: a path, an OCI registry or an HTTP repository, with a login or none."""

from __future__ import annotations

import hashlib
import os
import re
import urllib.parse
from pathlib import Path
from typing import Any

from harness.errors import UsageError
from harness.k8s.chart import Chart, read_chart
from harness.k8s.declaration import Declaration
from harness.k8s.references import parse
from harness.k8s.registry import Registry, logins_of
from harness.k8s.values import read_logins
from harness.k8s.web import Answer, Web, WebError, basic, shown
from harness.k8s.yamltext import load

_INDEX_BYTES, _CHART_BYTES = 64 << 20, 100 << 20
_OCI = "oci://"


def fetch_chart(wanted: Declaration, web: Web, into: Path) -> Chart:
    """The declared chart; what is fetched lies in ``into`` and is not fetched twice.

    UsageError (not there, no chart, not let in), WebError (the source could not be asked).
    """
    source = wanted.operator.chart
    if not source.startswith(_OCI) and not wanted.operator.repo:
        return _checked(read_chart(wanted.path.parent / source), wanted)
    if not wanted.operator.version:
        raise UsageError(
            f"{wanted.path}: [operator] version is missing: the newest one today is another "
            "one tomorrow",
            hint="say which",
        )
    key = f"{wanted.operator.repo} {source} {wanted.operator.version}"
    file = into / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.tgz"
    if not file.is_file():
        data = _from_registry(wanted, web) if source.startswith(_OCI) else _from_index(wanted, web)
        into.mkdir(parents=True, exist_ok=True)
        temporary = file.with_suffix(f".{os.getpid()}")
        temporary.write_bytes(data)
        temporary.replace(file)
    return _checked(read_chart(file), wanted)


def login_of(wanted: Declaration) -> str:
    """``user:password`` of the chart's source, from where the declaration says; empty for none."""
    one = wanted.operator
    if not one.username:
        if one.password_env or one.password_file:
            raise UsageError(f"{wanted.path}: [operator] has a password and no username")
        return ""
    if bool(one.password_env) == bool(one.password_file):
        raise UsageError(f"{wanted.path}: [operator] username needs password-env or password-file")
    if one.password_file:
        return f"{one.username}:{wanted.text(one.password_file, 'operator.password-file').strip()}"
    password = os.environ.get(one.password_env)
    if password is None:
        raise UsageError(f"{wanted.path}: the variable {one.password_env} is not set")
    return f"{one.username}:{password}"


def registry_of(wanted: Declaration, web: Web) -> Registry:
    """Who asks registries for this declaration, with its logins."""
    logins: dict[str, str] = {}
    if wanted.registry.docker_config:
        logins = logins_of(read_logins(wanted), wanted.registry.docker_config)
    login = login_of(wanted)
    if login and wanted.operator.chart.startswith(_OCI):
        logins[parse(wanted.operator.chart.removeprefix(_OCI)).host] = login
    return Registry(web, logins)


def _checked(chart: Chart, wanted: Declaration) -> Chart:
    version = wanted.operator.version
    if version and version.lstrip("v") != chart.version.lstrip("v"):
        raise UsageError(
            f"{wanted.path}: [operator] version = {version!r}, and {chart.path} is {chart.version}"
        )
    return chart


def _from_registry(wanted: Declaration, web: Web) -> bytes:
    # Tags cannot hold the plus of a version (Helm writes an underscore).
    tag = wanted.operator.version.replace("+", "_")
    reference = parse(f"{wanted.operator.chart.removeprefix(_OCI)}:{tag}")
    if reference.wrong or not reference.registry:
        why = reference.wrong or "it names no registry"
        raise UsageError(f"{wanted.path}: [operator] chart = {wanted.operator.chart!r}: {why}")
    return registry_of(wanted, web).chart(reference)


def _from_index(wanted: Declaration, web: Web) -> bytes:
    login = login_of(wanted)
    base = wanted.operator.repo.rstrip("/") + "/"
    parts = urllib.parse.urlsplit(base)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"{wanted.path}: [operator] repo = {shown(base)!r}: is no address")
    if parts.username:
        raise UsageError(
            f"{wanted.path}: [operator] repo has a login in it",
            hint="say username, and password-env or password-file",
        )
    headers = {"Authorization": basic(login)} if login else {}
    index = web.ask("GET", base + "index.yaml", headers, _INDEX_BYTES)
    _let_in(index, base)
    entry = _entry(index, wanted, base)
    urls = entry.get("urls")
    if not isinstance(urls, list) or not urls or not isinstance(urls[0], str):
        raise UsageError(f"{shown(base)}: its index has no address for this chart")
    url = urllib.parse.urljoin(base, urls[0])
    # As Helm: the login is for the repository's own host, not for where it leads.
    same = urllib.parse.urlsplit(url).netloc == parts.netloc
    found = web.ask("GET", url, headers if same else {}, _CHART_BYTES)
    _let_in(found, url)
    digest = str(entry.get("digest") or "").removeprefix("sha256:")
    if digest and hashlib.sha256(found.body).hexdigest() != digest:
        raise WebError(f"{shown(url)}: its content has not the digest of the index")
    return found.body


def _entry(index: Answer, wanted: Declaration, base: str) -> dict[str, Any]:
    name, version = wanted.operator.chart, wanted.operator.version
    try:
        found = load(index.body.decode(), shown(base + "index.yaml"))
    except UnicodeDecodeError as error:
        raise UsageError(f"{shown(base)}: its index is not UTF-8") from error
    entries = found.get("entries")
    versions = entries.get(name) if isinstance(entries, dict) else None
    if not isinstance(versions, list):
        raise UsageError(f"{shown(base)}: has no chart {name!r}")
    plain = [one for one in versions if isinstance(one, dict)]
    for one in plain:
        if str(one.get("version", "")).lstrip("v") == version.lstrip("v"):
            return one
    known = ", ".join(re.sub(r"\s", "", str(one.get("version"))) for one in plain[:5])
    raise UsageError(f"{shown(base)}: {name} has no version {version}", hint=f"there are {known}")


def _let_in(found: Answer, url: str) -> None:
    if found.status in (401, 403):
        hint = "no login, or not this one"
        raise UsageError(f"{shown(url)}: HTTP {found.status}", hint=hint)
    if found.status >= 300:
        raise UsageError(f"{shown(url)}: HTTP {found.status}", hint="is the address right?")
