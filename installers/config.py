"""What the metadata asks of this node. Built once; installers read it and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Optional

from installers import noproxy, proxyurl
from installers.errors import ConfigError
from installers.proxyurl import ProxyURL

METADATA_SERVER = "http://169.254.169.254"
IMAGE_BUILD = "custom-images"
SECURE_BOOT = ("required", "off")


@dataclass(frozen=True)
class ProxySettings:
    """The proxies and what bypasses them. ``notes`` tell how the user's keys were understood."""

    http: Optional[ProxyURL] = None
    https: Optional[ProxyURL] = None
    no_proxy: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def asserted(self) -> bool:
        """True when the metadata names a proxy at all."""
        return self.http is not None or self.https is not None

    @property
    def has_credentials(self) -> bool:
        """True when one of the proxies wants a password."""
        return any(p is not None and p.has_credentials for p in (self.http, self.https))

    @property
    def secrets(self) -> list[str]:
        """Passwords, decoded. Never to be shown."""
        found = (p.password for p in (self.http, self.https) if p is not None)
        return list(dict.fromkeys(secret for secret in found if secret))

    def environment(self, credentials: bool) -> dict[str, str]:
        """Variables in both cases, since curl reads only the lower and uv prefers the upper one."""
        values: dict[str, str] = {}
        for name, proxy in (("http_proxy", self.http), ("https_proxy", self.https)):
            if proxy is not None:
                values[name] = proxy.url if credentials else proxy.without_credentials
        if values:
            values["no_proxy"] = noproxy.join(self.no_proxy)
        return {**values, **{name.upper(): value for name, value in values.items()}}


@dataclass(frozen=True)
class Config:
    """The whole configuration of a node.

    ``pem_uri``: where the CA of an intercepting proxy is; ``image_build``: the node is an image in
    the making and will boot elsewhere; ``signer``: unix socket of the module signer;
    ``boot_kernel``: release the image will boot (None: the newest in /lib/modules);
    ``secure_boot``: one of SECURE_BOOT; ``apt_https``: make apt's http sources https; ``source``:
    where the metadata came from;
    ``raw``: every attribute as it was (may hold secrets: never printed).
    """

    proxy: ProxySettings = field(default_factory=ProxySettings)
    pem_uri: Optional[str] = None
    image_build: bool = False
    signer: Optional[str] = None
    boot_kernel: Optional[str] = None
    secure_boot: str = "off"
    apt_https: bool = False
    universe_domain: str = "googleapis.com"
    source: str = METADATA_SERVER
    raw: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def metadata_server(self) -> str:
        """Base URL of the metadata server, also when the attributes came from a file."""
        return self.source if self.source.startswith("http") else METADATA_SERVER


def from_attributes(attributes: Mapping[str, str], source: str = METADATA_SERVER) -> Config:
    """Build the configuration from merged attributes. Raises ConfigError."""
    signer = _text(attributes, "airlock-signer")
    secure_boot = _text(attributes, "airlock-secure-boot") or ("required" if signer else "off")
    if secure_boot not in SECURE_BOOT:
        raise ConfigError(
            f"{secure_boot!r} is not one of {', '.join(SECURE_BOOT)}", where="airlock-secure-boot"
        )
    return Config(
        proxy=_proxy(attributes),
        pem_uri=_text(attributes, "http-proxy-pem-uri"),
        image_build=_text(attributes, "invocation-type") == IMAGE_BUILD,
        signer=signer,
        boot_kernel=_text(attributes, "airlock-boot-kernel"),
        secure_boot=secure_boot,
        apt_https=_flag(attributes, "airlock-apt-https"),
        universe_domain=_text(attributes, "universe-domain") or "googleapis.com",
        source=source,
        raw=dict(attributes),
    )


def _proxy(attributes: Mapping[str, str]) -> ProxySettings:
    """http-proxy > proxy-uri; https-proxy > proxy-uri > the http proxy."""
    general = proxyurl.parse(attributes.get("proxy-uri"), "proxy-uri")
    http = proxyurl.parse(attributes.get("http-proxy"), "http-proxy") or general
    https = proxyurl.parse(attributes.get("https-proxy"), "https-proxy") or general
    no_proxy, notes = noproxy.parse(attributes.get(noproxy.KEY))
    if http is not None and https is None:
        https = http
        notes.append("https-proxy is not set: https goes through the http proxy")
    if http is None and https is not None:
        notes.append("only https-proxy is set: plain http will not use a proxy")
    return ProxySettings(http, https, no_proxy, notes)


def _text(attributes: Mapping[str, str], key: str) -> Optional[str]:
    return (attributes.get(key) or "").strip() or None


def _flag(attributes: Mapping[str, str], key: str) -> bool:
    text = (_text(attributes, key) or "false").lower()
    if text not in ("true", "false"):
        raise ConfigError("is neither true nor false", where=key)
    return text == "true"
