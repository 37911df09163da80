"""Images on Google Cloud: which one is meant, and what the API says of it. Names say nothing.

A family and a Dataproc version lead to one image, and that is told by its numeric id: a name can be
given again to another.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness import keydb
from harness.errors import UsageError
from installers.asn1 import Certificate, DERError, load_certificate
from installers.collect import efi

#: Where Dataproc's images are, and the label that says which version one is.
DATAPROC_PROJECT = "cloud-dataproc"
DATAPROC_LABEL = "goog-dataproc-version"
FORMS = "projects/P/global/images/NAME, .../images/family/F, or dataproc:2.2.60-debian12"
_LINK = re.compile(
    r"(?:https://(?:www|compute)\.googleapis\.com/compute/(?:v1|beta)/)?"
    r"projects/([a-z0-9.:-]+)/global/images/(family/)?([a-z]([a-z0-9-]{0,61}[a-z0-9])?)"
)
_DATAPROC = re.compile(r"dataproc:(\d+\.\d+\.\d+-[a-z0-9]+(?:-arm)?)")


@dataclass(frozen=True)
class Reference:
    """How an image was named: one of ``name``, ``family`` and ``version`` is set."""

    project: str
    name: str = ""
    family: str = ""
    version: str = ""

    @property
    def label(self) -> str:
        """A Dataproc version as its label has it: no dots."""
        return self.version.replace(".", "-")


@dataclass(frozen=True)
class Facts:
    """What the API says of one image. ``trusted``: SHA-256 of the certificates of its ``db``.

    ``trusted`` is empty where the image brings no list, and so has the platform's.
    """

    project: str
    name: str
    id: str
    family: str
    architecture: str
    created: dt.datetime
    status: str
    deprecated: str
    disk_gb: int
    features: tuple[str, ...]
    licenses: tuple[str, ...]
    labels: Mapping[str, str]
    trusted: tuple[str, ...]

    @property
    def link(self) -> str:
        """The partial URL of exactly this image."""
        return f"projects/{self.project}/global/images/{self.name}"

    @property
    def dataproc(self) -> str:
        """The Dataproc version that its label says; empty: none."""
        return self.labels.get(DATAPROC_LABEL, "")


def parse(text: str) -> Reference:
    """Read what names an image. UsageError says what is wrong with it."""
    if found := _LINK.fullmatch(text):
        project, family, name = found[1], found[2], found[3]
        return Reference(project, family=name) if family else Reference(project, name=name)
    if found := _DATAPROC.fullmatch(text):
        return Reference(DATAPROC_PROJECT, version=found[1])
    raise UsageError(f"{text!r} names no image", hint=FORMS)


def facts(answer: Mapping[str, Any]) -> Facts:
    """Read an image as the API answers it (JSON of compute v1's Image)."""
    link = str(answer["selfLink"])
    found = _LINK.search(link) or re.search(r"projects/([^/]+)/global/images/()([^/]+)", link)
    assert found, link
    state = answer.get("shieldedInstanceInitialState") or {}
    return Facts(
        project=found[1],
        name=str(answer["name"]),
        id=str(answer["id"]),
        family=str(answer.get("family") or ""),
        architecture=str(answer.get("architecture") or ""),
        created=dt.datetime.fromisoformat(str(answer["creationTimestamp"])),
        status=str(answer.get("status") or ""),
        deprecated=str((answer.get("deprecated") or {}).get("state") or ""),
        disk_gb=int(answer.get("diskSizeGb") or 0),
        features=tuple(sorted(one["type"] for one in answer.get("guestOsFeatures") or [])),
        licenses=tuple(answer.get("licenses") or ()),
        labels=dict(answer.get("labels") or {}),
        trusted=tuple(_digests(state.get("dbs") or [])),
    )


def choose(candidates: Iterable[Mapping[str, Any]], reference: Reference) -> Facts:
    """The image of a Dataproc version: ready, not deprecated, the newest. UsageError: no such.

    Several may carry one label; the API's times decide between them.
    """
    found = [facts(one) for one in candidates]
    labelled = [one for one in found if one.dataproc == reference.label]
    usable = [one for one in labelled if one.status == "READY" and not one.deprecated]
    if not usable:
        states = ", ".join(f"{one.name} is {one.deprecated or one.status}" for one in labelled)
        raise UsageError(
            f"dataproc:{reference.version}: no image that can be used has the label "
            f"{DATAPROC_LABEL}={reference.label}" + (f" ({states})" if states else ""),
            hint=f"gcloud compute images list --project {reference.project}",
        )
    return max(usable, key=lambda one: (one.created, one.id))


def refusal(image: Facts, architecture: str = "") -> str:
    """Why an image cannot be booted under Secure Boot; empty: it can. A sentence."""
    if image.status != "READY":
        return f"{image.link} is {image.status or 'in no state'}, not READY"
    if image.deprecated in ("OBSOLETE", "DELETED"):
        return f"{image.link} is {image.deprecated}: new machines cannot be made of it"
    if "UEFI_COMPATIBLE" not in image.features:
        return f"{image.link} has no feature UEFI_COMPATIBLE: there is no Secure Boot with it"
    if architecture and image.architecture and image.architecture != architecture:
        return f"{image.link} is for {image.architecture}, the machine is {architecture}"
    return ""


def trusts(image: Facts, certificates: Sequence[Certificate]) -> list[str]:
    """Names of certificates that firmware with this image's lists would not take."""
    if not image.trusted:  # the platform's own list: Microsoft's, and none of ours
        return [one.subject_cn or one.sha256 for one in certificates]
    return [one.subject_cn or one.sha256 for one in certificates if one.sha256 not in image.trusted]


def initial_state(
    ours: Sequence[Certificate], revoked: Sequence[Certificate] = ()
) -> dict[str, Any]:
    """``shieldedInstanceInitialState``: db of ours and Microsoft's of 2011 and 2023, dbx if any.

    A list of one's own takes the place of the platform's, so Microsoft's are in it. PK and KEK are
    left to the platform: nobody here changes the lists of a running machine.
    """
    allowed = [*ours, *keydb.microsoft().values()]
    state: dict[str, Any] = {"dbs": [_content(one.der, "X509") for one in allowed]}
    if revoked:
        state["dbxs"] = [_content(keydb.forbidden(revoked), "BIN")]
    return state


def trusting(
    base: Facts, name: str, state: Mapping[str, Any], *, family: str = ""
) -> dict[str, Any]:
    """The body of an image that is ``base`` with lists of its own. Labels go along.

    The build machine boots from it, and what is made of that machine's disk is given ``state`` too.
    """
    body: dict[str, Any] = {
        "name": name,
        "description": f"made by airlock gce trust from {base.link}, id {base.id}",
        "sourceImage": base.link,
        "labels": {**base.labels, "airlock-base": base.id},
        "guestOsFeatures": [{"type": feature} for feature in base.features],
        "shieldedInstanceInitialState": dict(state),
    }
    return {**body, **({"family": family} if family else {})}


def of_disk(
    base: Facts,
    disk: str,
    name: str,
    state: Mapping[str, Any],
    marks: Mapping[str, str],
    *,
    family: str = "",
) -> dict[str, Any]:
    """The body of an image of a build machine's disk (a URL); ``marks``: whose it is."""
    body = trusting(base, name, state, family=family)
    del body["sourceImage"]
    return {
        **body,
        "description": f"built by airlock run on {base.link}, id {base.id}",
        "sourceDisk": disk,
        "labels": {**body["labels"], **marks},
    }


def subject(image: Facts) -> dict[str, Any]:
    """What names exactly this image in a report; see ``reports.model.Subject``."""
    return {
        "project": image.project,
        "id": image.id,
        "created": image.created.isoformat(),
        "db_sha256": sorted(image.trusted),
    }


def _content(data: bytes, kind: str) -> dict[str, str]:
    # ``content`` is a string for the client library: it does not encode by itself.
    return {"content": base64.b64encode(data).decode(), "fileType": kind}


def _digests(entries: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    """SHA-256 of each certificate of a db, in hex: files of X509, and signature lists (BIN)."""
    for entry in entries:
        try:
            data = base64.b64decode(str(entry.get("content") or ""), validate=True)
            if entry.get("fileType") == "BIN":
                listed = [one for one in efi.signatures(data) if one.kind == efi.X509]
                yield from (hashlib.sha256(one.data).hexdigest() for one in listed)
            else:
                yield load_certificate(data).sha256
        except (binascii.Error, efi.SignatureListError, DERError):
            continue  # what is no certificate trusts nobody
