"""What the metadata asks of this node. Built once; installers read it and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Optional

from installers import noproxy, proxyurl
from installers.errors import ConfigError
from installers.kubernetes import wanted as kubernetes
from installers.proxyurl import ProxyURL

METADATA_SERVER = "http://169.254.169.254"
IMAGE_BUILD = "custom-images"
SECURE_BOOT = ("required", "off")


@dataclass(frozen=True)
class ProxySettings:
    """The proxies and what bypasses them. ``networks`` bypass them where a network is understood:
    by the services that Kubernetes is made of. ``notes`` tell how the user's keys were understood.
    """

    http: Optional[ProxyURL] = None
    https: Optional[ProxyURL] = None
    no_proxy: list[str] = field(default_factory=list)
    networks: list[str] = field(default_factory=list)
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
class NodeKey:
    """A signing key in Secret Manager that the node itself reads: the weaker choice.

    ``private`` and ``public`` name secrets of ``project``, in one fixed ``version``.
    """

    project: str
    private: str
    public: str
    version: str


@dataclass(frozen=True)
class Config:
    """The whole configuration of a node.

    ``pem_uri``: where the CA of an intercepting proxy is; ``image_build``: the node is an image in
    the making and will boot elsewhere; ``signer``: unix socket of the module signer;
    ``node_key``: key with which the node signs itself, only without ``signer``;
    ``signer_fingerprint``: SHA-256 that the signing certificate must have; ``modulus_md5``: MD5 of
    its modulus as ``openssl rsa -modulus`` prints it; ``unsigned_modules``: install without a
    signature where there is no signer;
    ``boot_kernel``: release the image will boot (None: the newest in /lib/modules);
    ``secure_boot``: one of SECURE_BOOT; ``apt_https``: make apt's http sources https;
    ``warn_only``: an apply that fails says so and ends with 0; ``source``:
    where the metadata came from;
    ``raw``: every attribute as it was (may hold secrets: never printed).
    """

    proxy: ProxySettings = field(default_factory=ProxySettings)
    pem_uri: Optional[str] = None
    image_build: bool = False
    signer: Optional[str] = None
    node_key: Optional[NodeKey] = None
    signer_fingerprint: Optional[str] = None
    modulus_md5: Optional[str] = None
    unsigned_modules: bool = False
    boot_kernel: Optional[str] = None
    secure_boot: str = "off"
    apt_https: bool = False
    warn_only: bool = False
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
    node_key = _node_key(attributes)
    unsigned = _flag(attributes, "airlock-unsigned-modules")
    signs = signer is not None or node_key is not None
    secure_boot = _text(attributes, "airlock-secure-boot") or ("required" if signs else "off")
    if secure_boot not in SECURE_BOOT:
        raise ConfigError(
            f"{secure_boot!r} is not one of {', '.join(SECURE_BOOT)}", where="airlock-secure-boot"
        )
    if unsigned and (signs or secure_boot == "required"):
        raise ConfigError(
            "unsigned modules do not go together with a signer or with Secure Boot",
            where="airlock-unsigned-modules",
            remedy="leave it out, or set airlock-secure-boot=off and name no signer",
        )
    return Config(
        proxy=_proxy(attributes),
        pem_uri=_text(attributes, "http-proxy-pem-uri"),
        image_build=_text(attributes, "invocation-type") == IMAGE_BUILD,
        signer=signer,
        node_key=node_key,
        signer_fingerprint=_digest(attributes, "airlock-signer-fingerprint", 64),
        modulus_md5=_digest(attributes, "modulus_md5sum", 32)
        or _digest(attributes, "cert_modulus_md5sum", 32),
        unsigned_modules=unsigned,
        boot_kernel=_text(attributes, "airlock-boot-kernel"),
        secure_boot=secure_boot,
        apt_https=_flag(attributes, "airlock-apt-https"),
        warn_only=_warn_only(attributes),
        universe_domain=_text(attributes, "universe-domain") or "googleapis.com",
        source=source,
        raw=dict(attributes),
    )


def _proxy(attributes: Mapping[str, str]) -> ProxySettings:
    """http-proxy > proxy-uri; https-proxy > proxy-uri > the http proxy."""
    general = proxyurl.parse(attributes.get("proxy-uri"), "proxy-uri")
    http = proxyurl.parse(attributes.get("http-proxy"), "http-proxy") or general
    https = proxyurl.parse(attributes.get("https-proxy"), "https-proxy") or general
    given = attributes.get(noproxy.KEY) or ""
    cluster = _text(attributes, "dataproc-cluster-name")
    if cluster is not None:
        # Nodes of a cluster talk to each other; workers' short names have no portable spelling.
        given = f"{given},.internal,{cluster}-m"
    of = kubernetes.cluster(attributes)
    if of is not None:
        given = ",".join([given, *of.names])
    no_proxy, notes = noproxy.parse(given)
    if http is not None and https is None:
        https = http
        notes.append("https-proxy is not set: https goes through the http proxy")
    if http is None and https is not None:
        notes.append("only https-proxy is set: plain http will not use a proxy")
    return ProxySettings(http, https, no_proxy, of.networks if of else [], notes)


def _node_key(attributes: Mapping[str, str]) -> Optional[NodeKey]:
    """``private_secret_name`` and its companions; an empty name means that nothing is signed."""
    private = _text(attributes, "private_secret_name")
    if private is None:
        return None
    public = _text(attributes, "public_secret_name")
    project = _text(attributes, "secret_project")
    for key, value in (("public_secret_name", public), ("secret_project", project)):
        if value is None:
            raise ConfigError("is needed beside private_secret_name", where=key)
    version = _text(attributes, "secret_version") or "1"
    if not version.isdigit() or version == "0":
        raise ConfigError(
            f"{version!r} is not a version's number",
            where="secret_version",
            remedy="latest and its like would change the key unseen: give a number",
        )
    return NodeKey(project or "", private, public or "", version)


def _warn_only(attributes: Mapping[str, str]) -> bool:
    """``airlock-policy``: fail, or warn on a node; an image that is not right is not to be kept."""
    policy = _text(attributes, "airlock-policy") or "fail"
    if policy not in ("fail", "warn"):
        raise ConfigError(f"{policy!r} is not one of fail, warn", where="airlock-policy")
    if policy == "warn" and _text(attributes, "invocation-type") == IMAGE_BUILD:
        raise ConfigError(
            "an image build does not only warn",
            where="airlock-policy",
            remedy="leave it out while the image is built, and set it on the nodes",
        )
    return policy == "warn"


def _digest(attributes: Mapping[str, str], key: str, digits: int) -> Optional[str]:
    """A hash in hex, with or without colons; None when the key is not set."""
    text = _text(attributes, key)
    if text is None:
        return None
    plain = text.replace(":", "").lower()
    if len(plain) != digits or set(plain) - set("0123456789abcdef"):
        raise ConfigError(f"is not {digits} hex digits", where=key)
    return plain


def _text(attributes: Mapping[str, str], key: str) -> Optional[str]:
    return (attributes.get(key) or "").strip() or None


def _flag(attributes: Mapping[str, str], key: str) -> bool:
    text = (_text(attributes, key) or "false").lower()
    if text not in ("true", "false"):
        raise ConfigError("is neither true nor false", where=key)
    return text == "true"
