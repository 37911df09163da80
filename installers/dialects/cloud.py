"""gcloud and gsutil. Both talk plain HTTP to a proxy, whatever its scheme says."""

from __future__ import annotations

import re

from installers.dialects.base import Wanted
from installers.dialects.ini import IniFile, merge_sections
from installers.host import Host
from installers.proxyurl import ProxyURL

# The first gcloud that honours no_proxy when its proxy properties are set; an older one would send
# calls of Google's own services, which stay direct, to the proxy.
_HONOURS_NO_PROXY = (547, 0, 0)
_ROOTS = (
    "/usr/lib/google-cloud-sdk",
    "/usr/lib64/google-cloud-sdk",
    "/usr/share/google-cloud-sdk",
    "/usr/local/google-cloud-sdk",
    "/opt/google-cloud-sdk",
    "/root/google-cloud-sdk",
)


_BLANKS = "drops blanks around a user or password: the proxy will refuse them"


def _has_outer_blanks(proxy: ProxyURL) -> bool:
    return any(text != text.strip() for text in (proxy.user or "", proxy.password or ""))


class Gcloud(IniFile):
    """``[proxy]`` of an installation's own ``properties``: for every user and configuration."""

    section = "proxy"
    interpolated = True
    keys = ("type", "address", "port", "username", "password", "rdns")
    veiled = frozenset({"proxy.username", "proxy.password"})
    # gcloud is run by ordinary users too: a password in this file is readable to them, as the one
    # in /etc/environment is.
    secret_mode = 0o644

    def __init__(self, root: str, version: tuple[int, ...]) -> None:
        self.name = f"gcloud {root}"
        self.path = f"{root}/properties"
        self.version = version

    def settings(self, want: Wanted) -> dict[str, str]:
        proxy = want.plain
        if proxy is None or self.version < _HONOURS_NO_PROXY:
            return {}
        values = {"type": "http", "address": proxy.host, "port": str(proxy.port)}
        if proxy.user is not None:
            values.update(username=proxy.user, password=proxy.password or "")
        return {f"proxy.{key}": value for key, value in values.items()}

    def notes(self, want: Wanted) -> list[str]:
        if want.asserted and want.plain is None:
            return ["gcloud: cannot talk TLS to a proxy"]
        if want.plain is not None and _has_outer_blanks(want.plain):
            return [f"gcloud: {_BLANKS}"]
        if want.asserted and self.version < _HONOURS_NO_PROXY:
            return [
                "gcloud: this release ignores no_proxy once it has a proxy of its own (it is older "
                "than 547.0.0), so it takes the environment's"
            ]
        return []


def gcloud_roots(host: Host) -> dict[str, tuple[int, ...]]:
    """Writable installations of the Cloud SDK and their versions."""
    candidates = list(_ROOTS)
    program = host.find_program("gcloud")
    if program is not None:
        candidates.insert(0, host.real(program).rsplit("/bin/", 1)[0])
    found: dict[str, tuple[int, ...]] = {}
    for root in candidates:
        text = host.read(f"{root}/VERSION")
        # A snap is a read-only image: there only the environment and the user's file can tell.
        if text is not None and not root.startswith("/snap/"):
            numbers = re.findall(r"\d+", text)[:3]
            found.setdefault(host.real(root), tuple(int(number) for number in numbers))
    return found


class Boto(IniFile):
    """``[Boto]`` of ``/etc/boto.cfg``, for gsutil where it runs without gcloud's properties."""

    name = "boto"
    path = "/etc/boto.cfg"
    section = "Boto"
    interpolated = True
    keys = ("proxy", "proxy_port", "proxy_type", "proxy_user", "proxy_pass", "proxy_rdns")
    veiled = frozenset({"Boto.proxy_user", "Boto.proxy_pass"})

    def applies(self, host: Host) -> bool:
        return host.exists(self.path) or host.find_program("gsutil") is not None

    def settings(self, want: Wanted) -> dict[str, str]:
        proxy = want.plain
        if proxy is None:
            return {}
        values = {"proxy": proxy.host, "proxy_port": str(proxy.port)}
        if proxy.user is not None:
            values.update(proxy_user=proxy.user, proxy_pass=proxy.password or "")
        return {f"Boto.{key}": value for key, value in values.items()}

    def write(self, text: str, settings: dict[str, str]) -> str:
        # gsutil does not start at all when a section is there twice, as image builds leave it.
        return super().write(merge_sections(text) if settings else text, settings)

    def notes(self, want: Wanted) -> list[str]:
        if want.asserted and want.plain is None:
            return ["gsutil: cannot talk TLS to a proxy"]
        if want.plain is not None and _has_outer_blanks(want.plain):
            return [f"gsutil: {_BLANKS}"]
        if want.asserted:
            return ["gsutil: a configured proxy serves every host, the bypass list does not apply"]
        return []
