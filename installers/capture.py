"""What a capture takes from a node, in one exchange: its facts, excerpts of its logs, and what its
metadata asks for. Secrets are taken out here: they never leave the node.

Only what is named here is taken; no file is sent as it is. See docs/capture.md.
"""

from __future__ import annotations

import contextlib
import subprocess
import threading
from collections.abc import Iterable
from typing import Any, Optional

from installers import metadata
from installers.blacken import Blackener
from installers.collect import credentials, kmsg
from installers.collect.reader import Reader
from installers.config import METADATA_SERVER
from installers.errors import NodeError
from installers.facts import Collector

SCHEMA = 1
#: Bytes of one excerpt, its end.
LARGEST = 256 << 10
LINES = 400
#: Seconds that a log may take; a journal of years is slow.
PATIENCE = 10.0
#: Attributes that ask something of a node's network, trust and drivers; others stay where they are.
ATTRIBUTES = (
    *("http-proxy", "https-proxy", "proxy-uri", "no-proxy", "http-proxy-pem-uri"),
    *("invocation-type", "universe-domain", "cuda-version", "gpu-driver-provider"),
)
OURS = "airlock-"
#: Whose messages are taken whatever they say.
UNITS = ("airlock-*", "dataproc*", "google-*", "cloud-init*", "nvidia-*")
# A machine with another instance's journal (a fork, a copied image) has two: --merge, with
# which systemd 252 takes no -b, but the boot's id as a match.
_JOURNAL = f"""\
boot=$(tr -d - </proc/sys/kernel/random/boot_id) || exit
exec journalctl --merge --no-pager -q -o short-iso -n {LINES} "$@" "_BOOT_ID=$boot"
"""
_ASKED = (("-p", "warning"), tuple(word for unit in UNITS for word in ("-u", unit)))
JOURNALS = tuple(("sh", "-c", _JOURNAL, "journalctl", *words) for words in _ASKED)


def collect(collector: Collector, nonce: Optional[str] = None) -> dict[str, Any]:
    """Everything, without secrets.

    ``facts`` as ever, ``texts`` (name -> excerpt), ``metadata`` (attributes, None where there are
    none), ``missing`` (name -> why it is not there), ``blackened`` (name -> how many secrets were
    taken out), ``looked_in`` (where the secrets were that it knows).
    """
    missing: dict[str, str] = {}
    reader = Reader(collector.root)
    with contextlib.ExitStack() as stack:
        logs = [stack.enter_context(_Log(argv, missing)) for argv in JOURNALS]
        asked = _Attributes(reader)
        asked.start()
        facts = collector.collect(nonce)
        found = credentials.find(reader, (facts.get("hygiene") or {}).get("private_keys") or ())
        texts = {"journal.txt": "\n".join(text for log in logs if (text := log.text()))}
        asked.join()
    try:
        texts["kernel.txt"] = kmsg.read()
    except OSError as error:
        missing["kernel.txt"] = str(error)
    if asked.error:
        missing["metadata.json"] = asked.error
    for value in (asked.values or {}).values():
        found.add("the metadata", credentials.of_file("the metadata", value))
    return clean(facts, texts, asked.chosen(), missing, found)


def clean(
    facts: dict[str, Any],
    texts: dict[str, str],
    attributes: Optional[dict[str, str]],
    missing: dict[str, str],
    found: credentials.Found,
) -> dict[str, Any]:
    """The answer, with ``found`` and whatever looks like a secret taken out of it."""
    blackener = Blackener(found.secrets)
    counts: dict[str, int] = {}

    for name in texts:
        if not texts[name]:
            missing.setdefault(name, "nothing was printed")

    def cleaned(name: str, value: Any) -> Any:
        before = blackener.count
        value = blackener.value(value)
        counts[name] = blackener.count - before
        return value

    return {
        "schema": SCHEMA,
        "facts": cleaned("facts.json", facts),
        "texts": {name: cleaned(name, excerpt(text)) for name, text in texts.items() if text},
        "metadata": cleaned("metadata.json", attributes),
        "missing": blackener.value(missing),
        "blackened": {name: count for name, count in counts.items() if count},
        "looked_in": sorted(found.places),
    }


def excerpt(text: str) -> str:
    """The end of a text, from the start of a line."""
    if len(text) <= LARGEST:
        return text
    return "[...]\n" + text[-LARGEST:].partition("\n")[2]


def chosen(values: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The attributes that a capture takes."""
    return {key: value for key, value in values if key in ATTRIBUTES or key.startswith(OURS)}


class _Log:
    """A program that prints a log, started at once. Context manager."""

    def __init__(self, argv: Iterable[str], missing: dict[str, str]) -> None:
        self._argv = list(argv)
        self._missing = missing
        self._process: Optional[subprocess.Popen[bytes]] = None

    def __enter__(self) -> _Log:
        try:
            self._process = subprocess.Popen(
                self._argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        except OSError as error:
            self._missing["journal.txt"] = f"{self._argv[0]}: {error.strerror}"
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()

    def text(self) -> str:
        """What it printed; what is missing is noted."""
        if self._process is None:
            return ""
        try:
            out, _ = self._process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            self._missing["journal.txt"] = f"journalctl took longer than {PATIENCE:g} s"
            return ""
        text = out.decode("utf-8", "replace")
        if self._process.returncode:
            self._missing["journal.txt"] = f"journalctl ended with {self._process.returncode}"
        return f"# {' '.join(self._argv[3:])}\n{text}" if text else ""


class _Attributes(threading.Thread):
    """Asks the metadata server, where there is reason to think that one is there."""

    def __init__(self, reader: Reader) -> None:
        super().__init__(daemon=True)
        self._source = _source(reader)
        self.values: Optional[dict[str, str]] = None
        self.error = "" if self._source else "nothing says that the node has a metadata server"

    def run(self) -> None:
        """One attempt: a capture must not wait for what is not there."""
        if self._source is None:
            return
        try:
            self.values = metadata.load(self._source, patience=0)
        except NodeError as error:
            self.error = f"{error.where}: {error.what}"
        except OSError as error:
            self.error = str(error)

    def chosen(self) -> Optional[dict[str, str]]:
        """What is taken of it."""
        return None if self.values is None else chosen(self.values.items())


def _source(reader: Reader) -> Optional[str]:
    """Where the node's attributes are: as its unit was told, or because of who made the machine."""
    from installers.collect import proxy

    if not reader.live:
        return None
    told = proxy.settings_url(reader)
    if told is not None:
        return told
    maker = reader.line("/sys/class/dmi/id/product_name") or ""
    return METADATA_SERVER if maker.startswith("Google") else None
