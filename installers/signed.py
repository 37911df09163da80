"""Every module signed once and by the expected certificate, or refused before anything is built."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import Any, Optional

from installers import elf, enrolled, modsig, signing
from installers.asn1 import Certificate
from installers.config import Config
from installers.engine import Refusal
from installers.errors import NodeError
from installers.host import Host
from installers.journal import Log
from installers.nodekey import NodeSigner
from installers.signing import ModuleSigner, Signer, SigningError

#: What is noted in place of a certificate's fingerprint where modules are unsigned on purpose.
UNSIGNED = "unsigned"


def modulus_md5(certificate: Certificate) -> str:
    """``openssl rsa -noout -modulus | openssl md5``: how today's metadata names a key."""
    text = f"Modulus={certificate.rsa_n or 0:X}\n".encode()
    return hashlib.md5(text, usedforsecurity=False).hexdigest()


def wants_code_signing(host: Host, kernel: str) -> bool:
    """Whether the kernel wants the purpose codeSigning; assumed where its options are not known."""
    options = host.read(f"/boot/config-{kernel}")
    return options is None or bool(re.search(r"(?m)^CONFIG_CHECK_CODESIGN_EKU=y$", options))


class Signing:
    """How this node's modules are signed: ``way`` is external, on-node, unsigned or none."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._certificate: Optional[Certificate] = None
        self.way = "none"
        if config.signer:
            self.way = "external"
        elif config.node_key:
            self.way = "on-node"
        elif config.unsigned_modules:
            self.way = UNSIGNED

    @contextlib.contextmanager
    def open(self) -> Iterator[ModuleSigner]:
        """The signer, for as long as it is needed. Raises SigningError."""
        config = self._config
        if config.signer:
            with Signer(config.signer) as socket:
                yield socket
        elif config.node_key:
            with NodeSigner(config, config.node_key) as key:
                yield key
        else:
            raise SigningError("no signer is configured")

    def certificate(self) -> Certificate:
        """The signer's certificate, asked for once. Raises SigningError."""
        if self._certificate is None:
            with self.open() as signer:
                self._certificate = signer.certificate()
        return self._certificate

    @property
    def signs(self) -> bool:
        """Whether there is a signer at all."""
        return self.way in ("external", "on-node")

    @property
    def identity(self) -> str:
        """The name of the key that this node reads itself; empty for all others."""
        key = self._config.node_key if self.way == "on-node" else None
        return f"{key.project}/{key.private}/{key.version}" if key else ""

    def fingerprint(self, host: Host, record: Mapping[str, Any]) -> Optional[str]:
        """What the record of an installation should name; None where nobody can be asked.

        Secret Manager is asked once: a fixed version of a secret does not change.
        """
        if self.way == UNSIGNED:
            return UNSIGNED
        if self.way == "on-node":
            if record.get("key") == self.identity:
                return record.get("certificate")
            if host.offline:
                return self._config.signer_fingerprint
        with contextlib.suppress(SigningError):  # refuse() says so
            return self.certificate().sha256
        return None

    @property
    def keys(self) -> list[str]:
        """What a plan says of the key."""
        if self.way == "external":
            return [f"module signing key behind {self._config.signer}"]
        if self._config.node_key:
            key = self._config.node_key
            return [f"module signing key {key.private}, version {key.version}, read by this node"]
        return []

    @property
    def notes(self) -> list[str]:
        """What a reader of the plan must know of the way."""
        if self.way == "external" and self._config.node_key:
            return ["private_secret_name is not used: airlock-signer signs, and keeps the key"]
        if self.way == "on-node":
            return [
                "the private key enters this node's memory: the weaker choice; "
                "with airlock-signer it stays outside"
            ]
        if self.way == UNSIGNED:
            return ["the modules stay unsigned, as airlock-unsigned-modules allows"]
        return []

    def refuse(self, host: Host, kernel: str) -> list[Refusal]:
        """What is wrong with the signer, as far as it can be told without any network."""
        return [] if self.way == "on-node" else self.problems(host, kernel)

    def require(self, host: Host, kernel: str) -> None:
        """Raises NodeError when the modules could not be signed: asked before anything is built."""
        for problem in self.problems(host, kernel):
            raise NodeError(problem.reason, where="driver", remedy=problem.remedy)

    def problems(self, host: Host, kernel: str) -> list[Refusal]:
        """No signer, another one than expected, or one whose certificate no kernel would take."""
        if self.way == UNSIGNED:
            return []
        if self.way == "none":
            reason = "no signer is configured: unsigned modules do not load under Secure Boot"
            remedy = (
                "set airlock-signer to the path of the signing socket (or private_secret_name), "
                "or set airlock-unsigned-modules=true for nodes without Secure Boot"
            )
            return [Refusal("driver.no-signer", reason, remedy)]
        try:
            certificate = self.certificate()
        except SigningError as error:
            remedy = error.remedy or "start the signer, then apply again"
            where = f"{error.where}: " if error.where else ""
            return [Refusal("driver.signer", f"{where}{error.what}", remedy)]
        against = self.against(certificate, host, kernel)
        if against:
            who = f"the signer's certificate ({certificate.subject_cn}) cannot be used"
            remedy = "give the signer an RSA certificate that is valid and has codeSigning"
            return [Refusal("driver.certificate", f"{who}: {'; '.join(against)}", remedy)]
        if self._config.secure_boot == "required" and not self._config.image_build:
            return enrolled.refuse(host, certificate)
        return []

    def against(self, certificate: Certificate, host: Host, kernel: str) -> list[str]:
        """Why this certificate must not sign for this kernel; empty when it may."""
        any_purpose = not wants_code_signing(host, kernel)
        found = signing.reasons_against(certificate, any_purpose=any_purpose)
        expected, md5 = self._config.signer_fingerprint, self._config.modulus_md5
        if expected and certificate.sha256 != expected:
            found.append(f"its SHA-256 is {certificate.sha256}, not the expected {expected}")
        if md5 and modulus_md5(certificate) != md5:
            found.append(f"its modulus has MD5 {modulus_md5(certificate)}, not the expected {md5}")
        return found

    def sign(
        self, host: Host, modules: dict[str, bytes], kernel: str, log: Log
    ) -> tuple[dict[str, bytes], Optional[Certificate]]:
        """Each stripped module signed once and verified; the modules as they are where unsigned."""
        for name, body in modules.items():
            if not elf.modinfo(body).get("vermagic", [""])[0].startswith(f"{kernel} "):
                raise NodeError(f"{name} was not built for {kernel}", where="driver")
        if self.way == UNSIGNED:
            log("sign", modules=0, way=UNSIGNED)
            return dict(modules), None
        signed = {}
        with log.step("sign", modules=len(modules), way=self.way), self.open() as signer:
            certificate = signer.certificate()
            against = self.against(certificate, host, kernel)
            if against:
                raise NodeError(f"the signer's certificate: {'; '.join(against)}", where="driver")
            self._certificate = certificate
            for name, body in modules.items():
                cms, _ = signer.sign(name, body)
                signed[name] = attach(name, body, cms, certificate)
        return signed, certificate


def attach(name: str, body: bytes, cms: bytes, certificate: Certificate) -> bytes:
    """The signed module, read back and verified; NodeError when the signer's answer is no good."""
    try:
        signed = modsig.attach(body, cms)
        seen = modsig.examine(signed, [certificate])
    except modsig.SignatureError as wrong:
        raise NodeError(f"the signature of {name} is no good: {wrong}", where="driver") from wrong
    if seen.signatures != 1 or not seen.digest_ok:
        raise NodeError(
            f"the signature of {name} is not by the certificate the signer showed",
            where="driver",
            remedy="look at the signer: it holds a key that is not its certificate's",
        )
    return signed
