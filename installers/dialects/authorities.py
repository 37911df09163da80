"""Where tools are told which CAs to trust, when they do not look at the system's store.

This is the CA of a proxy that intercepts TLS. Talking TLS to the proxy itself is another setting,
the scheme of its URL; neither follows from the other.
"""

from __future__ import annotations

import re
import shlex

from installers.dialects import clients, cloud, packages
from installers.dialects.base import Block, Dialect, OwnFile, Wanted
from installers.dialects.environment import HEADER
from installers.dialects.ini import IniFile
from installers.host import Host

LABEL = "ca"
VARIABLES = (
    "REQUESTS_CA_BUNDLE",
    # httpx, uv and rattler bring their own roots and take these instead.
    "SSL_CERT_FILE",
    # These are added to the ones that node brings.
    "NODE_EXTRA_CA_CERTS",
    "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",
)


def _variables(want: Wanted) -> dict[str, str]:
    if not want.ca_bundle:
        return {}
    bundle, own = want.ca_bundle, want.ca_file
    return dict(zip(VARIABLES, (bundle, bundle, own, bundle)))  # noqa: B905 - 3.9


class Environment(Block):
    """``/etc/environment``, in a block of its own beside the proxy's."""

    name = "ca-environment"
    label = LABEL
    path = "/etc/environment"
    keep_empty = True

    def settings(self, want: Wanted) -> dict[str, str]:
        return _variables(want)

    def read(self, text: str) -> dict[str, str]:
        return clients.properties(text, VARIABLES, "#")

    def render(self, settings: dict[str, str]) -> str:
        return "".join(f"{key}={value}\n" for key, value in settings.items())


class Profile(OwnFile):
    """Login shells."""

    name = "ca-profile"
    path = "/etc/profile.d/airlock-ca.sh"

    def settings(self, want: Wanted) -> dict[str, str]:
        return _variables(want)

    def read(self, text: str) -> dict[str, str]:
        found = (line[7:].partition("=") for line in text.splitlines() if line[:7] == "export ")
        return {key: "".join(shlex.split(value)) for key, _, value in found}

    def render(self, settings: dict[str, str]) -> str:
        lines = (f"export {key}={shlex.quote(value)}\n" for key, value in settings.items())
        return HEADER + "".join(lines)


class SystemdManager(OwnFile):
    """``DefaultEnvironment=`` of the system manager; paths of ours hold no specifiers."""

    name = "ca-systemd"
    path = "/etc/systemd/system.conf.d/airlock-ca.conf"

    def settings(self, want: Wanted) -> dict[str, str]:
        return _variables(want)

    def read(self, text: str) -> dict[str, str]:
        return dict(re.findall(r'^DefaultEnvironment="(\w+)=(.*)"$', text, re.MULTILINE))

    def render(self, settings: dict[str, str]) -> str:
        lines = (f'DefaultEnvironment="{key}={value}"\n' for key, value in settings.items())
        return f"{HEADER}[Manager]\n{''.join(lines)}"


class Git(Block):
    """``http.sslCAInfo`` of ``/etc/gitconfig``; git's GnuTLS looks at no variable of OpenSSL."""

    name = "ca-git"
    label = LABEL
    path = "/etc/gitconfig"

    def settings(self, want: Wanted) -> dict[str, str]:
        return {"http.sslCAInfo": want.ca_bundle} if want.ca_bundle else {}

    def read(self, text: str) -> dict[str, str]:
        found: dict[str, str] = {}
        section = ""
        for line in text.splitlines():
            header = re.match(r"\s*\[([^\]]*)\]", line)
            section = header[1].strip().lower() if header else section
            match = re.fullmatch(r'\s*sslcainfo\s*=\s*"?([^"]*?)"?\s*', line, re.IGNORECASE)
            if match and section == "http":
                found["http.sslCAInfo"] = match[1]
        return found

    def render(self, settings: dict[str, str]) -> str:
        return f'[http]\n\tsslCAInfo = "{settings["http.sslCAInfo"]}"\n'


class Pip(IniFile):
    """``cert`` of ``/etc/pip.conf``: before 24.2 pip trusts its own bundle alone."""

    name = "ca-pip"
    label = LABEL
    path = "/etc/pip.conf"
    section = "global"
    keys = ("cert",)

    def settings(self, want: Wanted) -> dict[str, str]:
        return {"global.cert": want.ca_bundle} if want.ca_bundle else {}


class Npm(Block):
    """``cafile`` of the global ``npmrc``, for runs that the environment does not reach."""

    label = LABEL

    def __init__(self, path: str) -> None:
        self.name = f"ca-npm {path}"
        self.path = path

    def settings(self, want: Wanted) -> dict[str, str]:
        return {"cafile": want.ca_bundle} if want.ca_bundle else {}

    def read(self, text: str) -> dict[str, str]:
        return clients.properties(text, ("cafile",))

    def render(self, settings: dict[str, str]) -> str:
        return f"cafile={settings['cafile']}\n"


class Conda(OwnFile):
    """``ssl_verify`` as a path: conda ignores ``truststore`` once it has a proxy."""

    name = "ca-conda"
    path = "/etc/conda/condarc.d/zz-airlock-ca.yml"

    def applies(self, host: Host) -> bool:
        return bool(packages.conda_roots(host))

    def settings(self, want: Wanted) -> dict[str, str]:
        return {"ssl_verify": want.ca_bundle} if want.ca_bundle else {}

    def read(self, text: str) -> dict[str, str]:
        found = re.findall(r"""^ssl_verify:\s*["']?(.*?)["']?\s*$""", text, re.MULTILINE)
        return {"ssl_verify": found[-1]} if found else {}

    def render(self, settings: dict[str, str]) -> str:
        return f'{HEADER}ssl_verify: "{settings["ssl_verify"]}"\n'


class Gcloud(IniFile):
    """``core/custom_ca_certs_file`` of an installation."""

    label = LABEL
    section = "core"
    keys = ("custom_ca_certs_file",)
    interpolated = True

    def __init__(self, root: str) -> None:
        self.name = f"ca-gcloud {root}"
        self.path = f"{root}/properties"

    def settings(self, want: Wanted) -> dict[str, str]:
        return {"core.custom_ca_certs_file": want.ca_bundle} if want.ca_bundle else {}


class Boto(IniFile):
    """``ca_certificates_file`` for a gsutil that runs without gcloud."""

    name = "ca-boto"
    label = LABEL
    path = "/etc/boto.cfg"
    section = "Boto"
    keys = ("ca_certificates_file",)
    interpolated = True

    def applies(self, host: Host) -> bool:
        return cloud.Boto().applies(host)

    def settings(self, want: Wanted) -> dict[str, str]:
        return {"Boto.ca_certificates_file": want.ca_bundle} if want.ca_bundle else {}


def dialects(host: Host) -> list[Dialect]:
    """All of them that the node has a use for, or still has our part of."""
    found: list[Dialect] = [
        Environment(),
        Profile(),
        SystemdManager(),
        Git(),
        Pip(),
        Conda(),
        Boto(),
        *(Npm(path) for path in clients.npm_files(host)),
        *(Gcloud(root) for root in cloud.gcloud_roots(host)),
    ]
    return [d for d in found if d.applies(host) or d.ours(host.read(d.path) or "")]
