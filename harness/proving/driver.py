"""Python's clients, one request a child: ``driver.py CLIENT`` with jobs on standard input.

Runs with whichever Python has the client, so it imports nothing of ours. The client is imported
once; each job is a fork with its own environment, in its own folder, so no client can remember the
job before. Jobs are JSON objects in lines: {url, env, folder}; what a child says goes to
``folder``/said.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import os
import signal
import sys
import urllib.request
from pathlib import Path
from typing import Any

SECONDS = 30


def _urllib(url: str) -> None:
    urllib.request.urlopen(url, timeout=SECONDS).close()  # noqa: S310 - the job says which


def _requests(url: str) -> None:
    importlib.import_module("requests").get(url, timeout=SECONDS)


def _httpx(url: str) -> None:
    importlib.import_module("httpx").get(url, timeout=SECONDS)


def _aiohttp(url: str) -> None:
    aiohttp: Any = importlib.import_module("aiohttp")

    async def fetch() -> None:
        async with aiohttp.ClientSession(trust_env=True) as session, session.get(url) as answer:
            await answer.read()

    asyncio.run(fetch())


def _rattler(url: str) -> None:
    rattler: Any = importlib.import_module("rattler")
    asyncio.run(
        rattler.fetch_repo_data(
            channels=[rattler.Channel(url)],
            platforms=[rattler.Platform("noarch")],
            cache_path=str(Path.cwd()),
            callback=None,
        )
    )


def _pip(url: str) -> None:
    main: Any = importlib.import_module("pip._internal.cli.main")
    host = url.split("/")[2]
    main.main(
        [
            *(
                "download",
                "--no-deps",
                "--no-cache-dir",
                "--retries",
                "0",
                "--timeout",
                str(SECONDS),
            ),
            *("--disable-pip-version-check", "--dest", ".", "--index-url", url),
            # A plain http index is not even asked otherwise.
            *(["--trusted-host", host] if url.startswith("http:") else []),
            "airlock-nothing",
        ]
    )


CLIENTS = {
    "urllib": (_urllib, ("urllib.request", "ssl")),
    "requests": (_requests, ("requests",)),
    "httpx": (_httpx, ("httpx",)),
    "aiohttp": (_aiohttp, ("aiohttp",)),
    "rattler": (_rattler, ("rattler",)),
    "pip": (_pip, ("pip._internal.cli.main", "pip._internal.commands.download")),
}
#: What pip would import anew in every child; other releases have other parts.
SOONER = ("pip._internal.resolution.resolvelib.resolver", "pip._internal.metadata.importlib")


def main() -> int:
    """Run every job; always 0: the logs tell what came of each."""
    fetch, modules = CLIENTS[sys.argv[1]]
    for module in modules:
        importlib.import_module(module)
    for module in SOONER if sys.argv[1] == "pip" else ():
        with contextlib.suppress(ImportError):
            importlib.import_module(module)
    for line in sys.stdin:
        job = json.loads(line)
        child = os.fork()
        if child == 0:
            said = os.open(f"{job['folder']}/said", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            os.dup2(said, 1)
            os.dup2(said, 2)
            signal.alarm(SECONDS + 5)
            os.environ.clear()
            os.environ.update(job["env"])
            os.chdir(job["folder"])
            try:
                fetch(job["url"])
            except BaseException as error:
                print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(0)
        os.waitpid(child, 0)
        Path(job["folder"], "done").touch()
    return 0


if __name__ == "__main__":
    sys.exit(main())
