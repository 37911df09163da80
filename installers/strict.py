"""What Python 3.13 and later ask of a CA beyond what every other program does.

Their default TLS context sets OpenSSL's ``X509_STRICT``, which holds every certificate of a chain,
the root included, to RFC 5280.
"""

from __future__ import annotations

import re

from installers import asn1
from installers.dialects import packages
from installers.host import Host

_STRICT_SINCE = 13
_BASIC_CONSTRAINTS, _SUBJECT_KEY, _AUTHORITY_KEY = "2.5.29.19", "2.5.29.14", "2.5.29.35"
_VERSION_3 = 2
_EMPTY_NAME = b"\x30\x00"


def violations(certificate: asn1.Certificate) -> list[str]:
    """What is missing or wrong in a CA certificate, in words; empty for a good one."""
    found = []
    critical, version, inner = _details(certificate.tbs)
    outer = asn1.fields(asn1.parse(certificate.der), 3)[1].raw
    if version < _VERSION_3:
        found.append("it is not an X.509 v3 certificate")
    if critical.get(_BASIC_CONSTRAINTS) is False:
        found.append("basicConstraints is not critical")
    if certificate.key_usage is None:
        found.append("it has no keyUsage")
    if certificate.ski is None:
        found.append("it has no subjectKeyIdentifier")
    if not certificate.self_issued and _AUTHORITY_KEY not in critical:
        found.append("it has no authorityKeyIdentifier")
    for name, oid in (("subject", _SUBJECT_KEY), ("authority", _AUTHORITY_KEY)):
        if critical.get(oid):
            found.append(f"{name}KeyIdentifier is critical")
    if _EMPTY_NAME in (certificate.subject, certificate.issuer):
        found.append("its subject or issuer is empty")
    if inner != outer:
        found.append("its two signature algorithms differ")
    return found


def pythons(host: Host) -> list[str]:
    """Interpreters of the node that are that strict."""
    places = ["/usr/bin", "/usr/local/bin", *(f"{r}/bin" for r in packages.conda_roots(host))]
    found: list[str] = []
    for place in places:
        for path in host.glob(place, "python3.*") if host.exists(place) else []:
            minor = re.fullmatch(r".*/python3\.(\d+)", path)
            if minor and int(minor[1]) >= _STRICT_SINCE:
                found.append(path)
    return found


def _details(tbs: bytes) -> tuple[dict[str, bool], int, bytes]:
    """``(critical by extension OID, version, inner signature algorithm)`` of a certificate."""
    parts = asn1.parse(tbs).children()
    version = 0
    if parts[0].tag == 0xA0:
        version = asn1.parse(parts[0].value).integer()
        parts = parts[1:]
    critical: dict[str, bool] = {}
    for wrapper in (part for part in parts[6:] if part.tag == 0xA3):
        for extension in asn1.parse(wrapper.value).children():
            name, *rest = extension.children()
            critical[name.oid()] = rest[0].tag == asn1.BOOLEAN and rest[0].boolean()
    return critical, version, parts[1].raw
