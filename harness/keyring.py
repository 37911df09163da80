"""A directory of module signing keys: one current, some retired, some revoked.

    key.pem            the current key and certificate (0600; absent with --secret)
    cert.der cert.pem  its certificate
    retired/HASH.der   certificates that images still trust: what they signed still loads
    revoked/HASH.der   certificates that no image may trust any more
    db/*.der db.esl    what an image's db is to hold: ours and Microsoft's
    dbx/*.der dbx.esl  what its dbx is to hold

Every change is made beside and renamed into place, file by file, the lists last: what a list names
is there.
"""

from __future__ import annotations

import base64
import datetime as dt
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from fixtures.pki import SIGNING_DAYS, make_signer
from harness import keydb
from harness.errors import UsageError
from installers.asn1 import Certificate, DERError, load_certificate
from installers.signed import modulus_md5


@dataclass(frozen=True)
class Made:
    """What ``create`` and ``rotate`` made: the certificate, and where the key is."""

    certificate: Certificate
    private: str  # a path, or a version of a secret
    public: str


class Keyring:
    """The directory. Raises UsageError for one that is not as described."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def current(self) -> Certificate:
        """The certificate that signs today."""
        path = self.directory / "cert.der"
        try:
            return load_certificate(path.read_bytes())
        except OSError as error:
            hint = f"airlock keys create {self.directory}"
            raise UsageError(f"{path}: {error.strerror}", hint=hint) from error
        except DERError as error:
            raise UsageError(f"{path}: {error}") from error

    def shelved(self, shelf: str) -> list[Certificate]:
        """The certificates on the shelf ``retired`` or ``revoked``, by fingerprint."""
        paths = sorted((self.directory / shelf).glob("*.der"))
        return [load_certificate(path.read_bytes()) for path in paths]

    def create(self, name: str, *, secret: str = "", days: float = SIGNING_DAYS) -> Made:
        """A first key pair. UsageError when there is one already."""
        if (self.directory / "cert.der").exists():
            hint = f"airlock keys rotate {self.directory}"
            raise UsageError(f"{self.directory} holds a key already", hint=hint)
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        return self._make(name, secret, days)

    def rotate(self, name: str, *, secret: str = "", days: float = SIGNING_DAYS) -> Made:
        """A new key pair; the old certificate is trusted until it is revoked, its key is gone."""
        old = self.current()
        _write(self._shelf("retired") / f"{old.sha256}.der", old.der)
        return self._make(name, secret, days)

    def revoke(self, fingerprint: str) -> Certificate:
        """Take a retired certificate out of db and put it into dbx. Returns it.

        UsageError for one that is not known, and for the current one: rotate first.
        """
        wanted = fingerprint.replace(":", "").lower()
        if wanted and self.current().sha256.startswith(wanted):
            hint = f"airlock keys rotate {self.directory}, then build and sign again, then revoke"
            raise UsageError(f"{wanted} is the key that signs today", hint=hint)
        found = [c for c in self.shelved("retired") if wanted and c.sha256.startswith(wanted)]
        if len(found) != 1:
            known = ", ".join(c.sha256[:16] for c in self.shelved("retired")) or "none"
            raise UsageError(
                f"{fingerprint!r} names {len(found)} retired certificates", hint=f"retired: {known}"
            )
        (one,) = found
        _write(self._shelf("revoked") / f"{one.sha256}.der", one.der)
        (self._shelf("retired") / f"{one.sha256}.der").unlink()
        self._write_lists()
        return one

    def _shelf(self, name: str) -> Path:
        path = self.directory / name
        path.mkdir(exist_ok=True)
        return path

    def _make(self, name: str, secret: str, days: float) -> Made:
        identity = make_signer(name, days=days)
        private, public = str(self.directory / "key.pem"), str(self.directory / "cert.der")
        if secret:
            from harness.signers.secret_manager import Secrets

            secrets = Secrets()
            # The certificate first: a key that nobody can name does no harm.
            public = secrets.store(f"{secret}-pub", base64.b64encode(identity.der))
            private = secrets.store(f"{secret}-priv", identity.key_pem)
            (self.directory / "key.pem").unlink(missing_ok=True)
        else:
            _write(self.directory / "key.pem", identity.key_and_cert(), mode=0o600)
        _write(self.directory / "cert.pem", identity.pem)
        _write(self.directory / "cert.der", identity.der)
        self._write_lists()
        return Made(self.current(), private, public)

    def _write_lists(self) -> None:
        ours = [self.current(), *self.shelved("retired")]
        files = {f"airlock-{one.sha256[:16]}": one for one in ours} | keydb.microsoft()
        self._folder("db", files)
        _write(self.directory / "db.esl", keydb.allowed(ours))
        gone = self.shelved("revoked")
        self._folder("dbx", {f"airlock-{one.sha256[:16]}": one for one in gone})
        _write(self.directory / "dbx.esl", keydb.forbidden(gone))

    def _folder(self, name: str, certificates: dict[str, Certificate]) -> None:
        """A directory that holds exactly these certificates in DER."""
        target = self.directory / name
        target.mkdir(exist_ok=True)
        for stem, one in certificates.items():
            _write(target / f"{stem}.der", one.der)
        for path in target.iterdir():
            if path.stem not in certificates:
                path.unlink() if path.is_file() else shutil.rmtree(path)


def describe(made: Made) -> list[str]:
    """What a person does with a new key: metadata and the image's flags."""
    lines = [
        f"certificate: {made.certificate.subject_cn}",
        f"  sha256 {made.certificate.sha256}",
        f"  until {made.certificate.not_after:%Y-%m-%d}",
        f"private key: {made.private}",
        "metadata:",
        f"  airlock-signer-fingerprint={made.certificate.sha256}",
    ]
    if "/versions/" in made.private:
        project, _, rest = made.private.removeprefix("projects/").partition("/secrets/")
        name, _, version = rest.partition("/versions/")
        public = made.public.partition("/secrets/")[2].partition("/versions/")[0]
        lines += [f"  secret_project={project}", f"  secret_version={version}"]
        lines += [f"  private_secret_name={name}", f"  public_secret_name={public}"]
        lines.append(f"  modulus_md5sum={modulus_md5(made.certificate)}")
    notes = keydb.warnings(keydb.microsoft(), dt.datetime.now(dt.UTC))
    return [*lines, *(f"note: {note}" for note in notes)]


def _write(path: Path, data: bytes, mode: int = 0o644) -> None:
    """As a whole, and on disk before it is named."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        Path(name).rename(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
