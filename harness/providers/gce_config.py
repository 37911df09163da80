"""Where and how nodes are made on Google Cloud: ``gce.toml``, or the file that AIRLOCK_GCE names.

::

    project = "my-project"
    zones = ["europe-west4-a", "europe-west4-b"]   # tried in this order where one has none left
    subnetwork = "airlock-nodes"                   # of each zone's region; it lets nobody out
    machine_type = "g2-standard-4"
    accelerator = "nvidia-tesla-t4"                # N1 only; the others bring their own
    accelerators = 1
    provisioning = "spot"                          # or "standard"
    minutes = 60                                   # Google deletes a node that is older
    user = "airlock"                               # who logs in; made by the image's guest agent

    [images.debian-12]                             # the matrix's name
    source = "projects/debian-cloud/global/images/family/debian-12"
    disk_gb = 30
    own_keys = false                               # its signature databases have our certificate
    build = true                                   # nodes are made of an image that is built on it

    [build]                                        # what those images are built on
    key = "file:keys/module.key"                   # signs modules; its certificate is in their db
    certificates = ["other.pem"]                   # which are in their db besides
    machine_type = "e2-standard-8"
    provisioning = "standard"
    minutes = 180
    keep = false                                   # true: the image stays when the run has ended
    family = ""                                    # of an image that stays

    [proxy]                                        # as `airlock gce up` prints it
    url = "http://10.126.1.2:3128"
    intercept = true
    network = "airlock"                            # its log is the nodes' ledger
    [attributes]                                   # the nodes' metadata besides
    http-proxy-pem-uri = "gs://bucket/ca.pem"

    [limit]
    spend = 5.0                                    # of one run, at most; a hard stop
    currency = "USD"

    [[prices]]                                     # of a whole node; known to you, not to us
    machine_type = "g2-standard-4"
    region = "europe-west4"
    provisioning = "spot"
    per_hour = 0.35
    currency = "USD"
    source = "https://cloud.google.com/compute/gpus-pricing"
    date = 2026-11-01
"""

from __future__ import annotations

import datetime as dt
import os
import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from harness.catalog import check_keys, line_of, read_toml
from harness.errors import UsageError

VARIABLE = "AIRLOCK_GCE"
FILE = "gce.toml"
#: Seconds that Google lets a run be limited to; "Limit the run time of a VM" in its documentation.
SHORTEST, LONGEST = 30, 120 * 86400
_PROJECT = re.compile(r"(?:[a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]")
_ZONE = re.compile(r"[a-z]+-[a-z]+\d+-[a-z]")
_PROXY = re.compile(r"https?://[A-Za-z0-9.-]+(:\d{1,5})?/?")
_NETWORK = re.compile(r"[a-z]([a-z0-9-]{0,40}[a-z0-9])?")
_USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
_IMAGE = re.compile(
    r"projects/[^/]+/global/images/(family/)?[^/]+|dataproc:\d+\.\d+\.\d+-[a-z0-9]+(-arm)?"
)
#: What the guest agent and we ourselves need: not for the user to set.
RESERVED = (
    *("ssh-keys", "block-project-ssh-keys", "enable-oslogin", "enable-guest-attributes"),
    *("http-proxy", "user-data", "startup-script"),
)

T = TypeVar("T")


@dataclass(frozen=True)
class Source:
    """``[images.NAME]``: an image or family of Google Cloud that stands for an image of ours."""

    source: str
    disk_gb: int = 20
    own_keys: bool = False
    build: bool = False


@dataclass(frozen=True)
class Build:
    """``[build]``: the machine that images are built on, whom they trust, and whether they stay.

    ``key``: a spec of ``--key`` (``harness.signers.spec``), files relative to the working directory
    as there; ``certificates``: files, relative to this one.
    """

    key: str = ""
    certificates: tuple[str, ...] = ()
    machine_type: str = "e2-standard-4"
    provisioning: str = "standard"
    minutes: int = 180
    keep: bool = False
    family: str = ""


@dataclass(frozen=True)
class Proxy:
    """``[proxy]``: the only way out of the nodes' network.

    ``network``: of `airlock gce up`, if its proxy this is; that one's log is the nodes' ledger.
    """

    url: str
    intercept: bool = False
    ca_sha256: str = ""
    network: str = ""


@dataclass(frozen=True)
class Limit:
    """``[limit]``: what one run may cost."""

    spend: float
    currency: str


@dataclass(frozen=True)
class Price:
    """``[[prices]]``: of a whole node (machine, cards, disk) by the hour, and who says so."""

    machine_type: str
    region: str
    provisioning: str
    per_hour: float
    currency: str
    source: str
    date: dt.date
    accelerator: str = ""
    accelerators: int = 0


@dataclass(frozen=True)
class Config:
    """The whole file. ``path``: where it was read."""

    path: Path
    project: str
    zones: tuple[str, ...]
    machine_type: str
    images: Mapping[str, Source]
    subnetwork: str = "airlock-nodes"
    accelerator: str = ""
    accelerators: int = 0
    provisioning: str = "spot"
    minutes: int = 60
    user: str = "airlock"
    disk_type: str = "pd-balanced"
    proxy: Proxy | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    limit: Limit | None = None
    prices: tuple[Price, ...] = ()
    build: Build | None = None

    @property
    def builder(self) -> Config:
        """The same for the machine that images are built on: it has no cards."""
        build = self.build or Build()
        return replace(
            self,
            machine_type=build.machine_type,
            accelerator="",
            accelerators=0,
            provisioning=build.provisioning,
            minutes=build.minutes,
        )

    @property
    def gpu(self) -> bool:
        """Whether nodes have cards: given to an N1, or of the machine type's own."""
        return (
            bool(self.accelerators)
            or re.match(r"(a2|a3|a4|a4x|g2|g4)-", self.machine_type) is not None
        )

    @property
    def arch(self) -> str:
        """``uname -m`` of the machine type."""
        arm = re.match(r"(t2a|c4a|n4a|a4x)-", self.machine_type)
        return "aarch64" if arm else "x86_64"

    @property
    def seconds(self) -> int:
        """The longest life of a node."""
        return self.minutes * 60

    def price(self, zone: str) -> Price | None:
        """What a node costs there, if somebody said; the latest word counts."""
        region = zone.rpartition("-")[0]
        found = [
            price
            for price in self.prices
            if (price.machine_type, price.region, price.provisioning)
            == (self.machine_type, region, self.provisioning)
            and (price.accelerator, price.accelerators) == (self.accelerator, self.accelerators)
        ]
        return max(found, key=lambda price: price.date, default=None)


def config_path() -> Path:
    """The file that is read."""
    return Path(os.environ.get(VARIABLE) or FILE)


def read_config(path: Path | None = None) -> Config:
    """Read the file. UsageError with file, line and what to write."""
    path = path or config_path()
    if not path.is_file():
        raise UsageError(
            f"{path}: there is no such file, and gce needs to know project, zones and images",
            hint=f"docs/gce.md has one to begin with; {VARIABLE} names another place",
        )
    text, data = read_toml(path)
    _Reader(path, text).whole(data)
    values = dict(data)
    reader = _Reader(path, text)
    values["zones"] = tuple(data["zones"])
    values["images"] = {
        name: reader.table(Source, table, f"[images.{name}]")
        for name, table in data["images"].items()
    }
    if "proxy" in data:
        values["proxy"] = reader.table(Proxy, data["proxy"], "[proxy]")
    if "build" in data:
        values["build"] = reader.table(Build, data["build"], "[build]")
    if "limit" in data:
        values["limit"] = reader.table(Limit, data["limit"], "[limit]")
    values["prices"] = tuple(
        reader.table(Price, table, "[[prices]]", nth)
        for nth, table in enumerate(data.get("prices", []))
    )
    found = Config(path=path, **values)
    reader.judge(found)
    return found


class _Reader:
    """Says where in the file something is wrong."""

    def __init__(self, path: Path, text: str) -> None:
        self.path, self.text = path, text

    def wrong(
        self, key: str, why: str, hint: str = "", header: str = "", nth: int = 0
    ) -> UsageError:
        """The error for a key."""
        line = line_of(self.text, key, header, nth)
        return UsageError(f"{self.path}:{line}: {key} {why}", hint=hint)

    def whole(self, data: dict[str, Any]) -> None:
        """The outermost table: its keys, and that the parts are what they must be."""
        known = {each.name: each for each in fields(Config) if each.name != "path"}
        check_keys(self.path, self.text, data, known, "")
        for name in ("project", "zones", "machine_type", "images"):
            if name not in data:
                raise UsageError(f"{self.path}: lacks {name!r}", hint="see docs/gce.md")
        for name in ("images", "attributes"):
            if not isinstance(data.get(name, {}), dict):
                raise self.wrong(name, "must be a table")
        zones = data["zones"]
        if not isinstance(zones, list) or not zones or not all(isinstance(z, str) for z in zones):
            raise self.wrong("zones", "must be a list of zones", 'such as ["europe-west4-a"]')
        if not isinstance(data.get("prices", []), list):
            raise self.wrong("prices", "must be a list of tables", "write [[prices]]")
        kinds = {
            **dict.fromkeys(("project", "machine_type", "subnetwork", "accelerator"), str),
            **dict.fromkeys(("provisioning", "user", "disk_type"), str),
            **dict.fromkeys(("accelerators", "minutes"), int),
        }
        for name, kind in kinds.items():
            if name in data and (not isinstance(data[name], kind) or isinstance(data[name], bool)):
                raise self.wrong(name, f"must be {'text' if kind is str else 'a whole number'}")

    def table(self, kind: type[T], table: Any, header: str, nth: int = 0) -> T:
        """One of the tables; UsageError for a key or a value that it cannot have."""
        if not isinstance(table, dict):
            raise UsageError(f"{self.path}: {header} is not a table")
        known = {each.name: each for each in fields(kind)}  # type: ignore[arg-type]
        check_keys(self.path, self.text, table, known, header, nth)
        for name, each in known.items():
            if name not in table:
                if each.default is MISSING:
                    raise self.wrong(name, f"is not given in {header}", "", header, nth)
                continue
            if str(each.type).startswith("tuple"):
                if not isinstance(value := table[name], list) or not all(
                    isinstance(one, str) for one in value
                ):
                    raise self.wrong(name, "must be a list of texts", "", header, nth)
                table = {**table, name: tuple(value)}
                continue
            of = {"int": int, "float": (int, float), "bool": bool, "date": dt.date}
            wanted: Any = of.get(str(each.type).rpartition(".")[2], str)
            value = table[name]
            # A truth value is a number to Python, and a moment a date.
            finer = (bool, dt.datetime) if wanted is not bool else ()
            if not isinstance(value, wanted) or isinstance(value, finer):
                word = {"int": "a whole number", "float": "a number", "bool": "true or false"}
                said = word.get(str(each.type), "a date" if wanted is dt.date else "text")
                raise self.wrong(name, f"must be {said}", "", header, nth)
        return kind(**table)

    def judge(self, found: Config) -> None:
        """What the values must be beyond their types."""
        if not _PROJECT.fullmatch(found.project):
            raise self.wrong("project", "is no project's id", "gcloud projects list")
        for zone in found.zones:
            if not _ZONE.fullmatch(zone):
                raise self.wrong(
                    "zones", f"has {zone!r}, which is no zone", "europe-west4-a is one"
                )
        if found.provisioning not in ("spot", "standard"):
            raise self.wrong("provisioning", 'must be "spot" or "standard"')
        if not SHORTEST <= found.seconds <= LONGEST:
            raise self.wrong("minutes", "must be from 1 to 172800: Google's own limit")
        if not _USER.fullmatch(found.user):
            raise self.wrong("user", "is no login name that Google's guest agent would make")
        if bool(found.accelerator) != bool(found.accelerators) or found.accelerators < 0:
            raise self.wrong("accelerator", "and accelerators go together", "how many of which")
        if found.build:
            self.judge_build(found, found.build)
        for name, image in found.images.items():
            header = f"[images.{name}]"
            if image.build and not found.build:
                raise self.wrong("build", "needs a table [build]", "docs/gce.md has one", header)
            if not _IMAGE.fullmatch(image.source):
                hint = "projects/PROJECT/global/images/[family/]NAME, or dataproc:2.2.60-debian12"
                raise self.wrong("source", "names no image", hint, header)
            if not 10 <= image.disk_gb <= 65536:
                raise self.wrong("disk_gb", "must be from 10 to 65536", "", header)
        for key, value in found.attributes.items():
            if key in RESERVED or not isinstance(value, str):
                why = "is set by Airlock itself" if key in RESERVED else "must be text"
                raise self.wrong(key, why, "", "[attributes]")
        if found.proxy and not _PROXY.fullmatch(found.proxy.url):
            hint = "http://HOST:PORT; a password would be seen by everybody in the project"
            raise self.wrong("url", "is no proxy's URL", hint, "[proxy]")
        if found.proxy and found.proxy.network and not _NETWORK.fullmatch(found.proxy.network):
            raise self.wrong("network", "is no network of `airlock gce up`", "", "[proxy]")
        if found.limit and found.limit.spend <= 0:
            raise self.wrong("spend", "must be more than nothing", "", "[limit]")
        for nth, price in enumerate(found.prices):
            if price.per_hour <= 0 or not price.source:
                why = "must be more than nothing, and from somewhere (source)"
                raise self.wrong("per_hour", why, "", "[[prices]]", nth)
            if price.date > dt.datetime.now(dt.UTC).date():
                raise self.wrong("date", "is in the future", "", "[[prices]]", nth)

    def judge_build(self, found: Config, build: Build) -> None:
        """The same for ``[build]``."""
        header = "[build]"
        if not build.key and not build.certificates:
            why = "or certificates must be given: whom else should the image trust?"
            raise self.wrong("key", why, "", header)
        if build.provisioning not in ("spot", "standard"):
            raise self.wrong("provisioning", 'must be "spot" or "standard"', "", header)
        if not SHORTEST <= found.builder.seconds <= LONGEST:
            raise self.wrong("minutes", "must be from 1 to 172800: Google's own limit", "", header)
        if found.builder.gpu or found.builder.arch != found.arch:
            why = f"must be of {found.arch} and without cards of its own"
            raise self.wrong("machine_type", why, "", header)
        if build.family and not build.keep:
            raise self.wrong("family", "is of images that stay", "keep = true", header)
        if build.family and not _NETWORK.fullmatch(build.family):
            raise self.wrong("family", "is no image family", "", header)
