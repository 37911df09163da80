"""What comes through the proxy: all of it, in time; and what must not be asked through it."""

from __future__ import annotations

from typing import NamedTuple

from conformance.requests import through_proxy
from harness.checks import broken, check, fact, fail, not_verified, origin_http, proxy
from harness.node import Node

SIZE = 4_000_000
SECONDS = 16
#: Bytes a second: a driver's 300 MB in twenty minutes.
LEAST_RATE = 256_000
# curl(1), EXIT CODES: partial file, time-out, size limit, receive error, HTTP/2 stream error.
PARTIAL, TIMED_OUT, TOO_LARGE, RECEIVE, STREAM = 18, 28, 63, 56, 92


class Download(NamedTuple):
    """One download of SIZE bytes: curl's exit code, its complaint, bytes, bytes a second."""

    code: int
    said: str
    size: int
    rate: float


@check(
    id="proxy.whole-downloads",
    severity="blocker",
    title="A long download through the proxy arrives whole",
    remedy="Something on the way ends long transfers: ask who runs the proxy for its limits on "
    "size and time, use a mirror inside, and have downloads resume.",
    requires=(proxy, origin_http),
    source="curl(1), exit codes 18, 56 and 92; 4 MB from an origin of ours",
)
def test_whole_downloads(node: Node) -> None:
    """A slow one says nothing about this: that is proxy.throughput's affair."""
    got = _download(node)
    if got.code in (PARTIAL, TOO_LARGE, RECEIVE, STREAM):
        fail(f"the download ended after {got.size} of {SIZE} bytes: {got.said}", [got.said])
    if got.code:
        not_verified(f"nothing was downloaded: {got.said}")
    if got.size != SIZE:
        fail(f"{got.size} bytes arrived instead of {SIZE}")


@check(
    id="proxy.throughput",
    severity="major",
    title="Downloads through the proxy are fast enough for a driver",
    remedy="Ask who runs the proxy for its limit on bandwidth; until then use a mirror inside, or "
    "an image that holds the driver already.",
    requires=(proxy, origin_http),
    depends=["proxy.whole-downloads"],
    source=f"at least {LEAST_RATE // 1000} kB/s over {SIZE // 1_000_000} MB",
)
def test_throughput(node: Node) -> None:
    """Patience on the way is limited: startup probes, installers, people."""
    got = _download(node)
    if got.code not in (0, TIMED_OUT):
        not_verified(f"the download did not end: {got.said}")
    if got.rate < LEAST_RATE:
        fail(
            f"{got.rate / 1000:.0f} kB/s through the proxy, {LEAST_RATE // 1000} are needed: "
            f"{got.size} of {SIZE} bytes in {SECONDS} s",
            [got.said],
        )


@check(
    id="proxy.key-servers",
    severity="major",
    title="No set-up script asks a key server",
    remedy="Ship the repository's key with the image, or fetch it over HTTPS and compare its "
    "fingerprint: key servers speak HKP (port 11371), and dirmngr resolves names by itself.",
    requires=proxy,
    source="gpg --recv-keys, --keyserver and hkp:// in scripts of the image",
)
def test_key_servers(node: Node) -> None:
    """Behind a proxy it ends in a time-out, or only says 'No name'."""
    found = [f"{hit['path']}:{hit['line']}: {hit['text']}" for hit in fact(node, "key_servers")]
    if found:
        fail(f"{len(found)} scripts ask a key server: {found[0]}", found)


def _download(node: Node) -> Download:
    url = f"{str(node.expect['origin_http_url']).rstrip('/')}/bytes/{SIZE}"
    options = ("--max-time", str(SECONDS), "-w", "%{http_code} %{size_download} %{speed_download}")
    ran = node.host.run(through_proxy(node, url, *options, as_login=bool(node.expect.get("auth"))))
    words = ran.stdout.split()
    if len(words) != 3:
        broken("curl said nothing of the download", [ran.stdout, ran.stderr])
    if ran.rc == 0 and words[0] != "200":
        not_verified(f"the proxy answered {words[0]}")
    return Download(ran.rc, ran.stderr.strip(), int(words[1]), float(words[2]))
