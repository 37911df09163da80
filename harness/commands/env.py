"""``airlock env``: conda environments: check, lock, build."""

from __future__ import annotations

import argparse
from pathlib import Path

from installers.exits import Exit


def arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's own verbs."""
    verbs = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    for name, about in (
        ("check", "do a specification's CUDA pins go with the compatibility table?"),
        ("lock", "solve a specification; write every package's URL and SHA-256"),
    ):
        one = verbs.add_parser(name, help=about)
        one.add_argument("spec", metavar="SPEC", help="pytorch, tensorflow, rapids, or a file")
        one.add_argument("--cuda", default=None, metavar="X.Y", help="the nodes' CUDA")
        if name == "check":
            continue
        one.add_argument("--channel", action="append", default=[], metavar="URL", help="mirrors")
        one.add_argument("--platform", default="linux-64", choices=("linux-64", "linux-aarch64"))
        one.add_argument(
            "--tool", choices=("mamba", "rattler"), help="default: mamba if it is here"
        )
        one.add_argument("--output", type=Path, metavar="FILE", help="default: NAME.lock.json")
    one = verbs.add_parser("build", help="build a locked environment and put it into a store")
    one.add_argument("lock", type=Path, metavar="LOCK")
    one.add_argument("--store", required=True, metavar="URL", help="file:///..., gs://...")
    one.add_argument("--key", metavar="SPEC", help="signs the entry, as in 'airlock keys'")
    one.add_argument("--signer", metavar="SOCKET", help="signs the entry")


def run(args: argparse.Namespace) -> int:
    """One of the verb's verbs; returns the exit code."""
    from harness.errors import UsageError
    from installers.errors import ConfigError

    try:
        return {"check": _check, "lock": _lock, "build": _build}[args.what](args)
    except ConfigError as error:
        raise UsageError(str(error)) from error


def _check(args: argparse.Namespace) -> int:
    from harness.envs.solve import read_spec

    spec = read_spec(args.spec)
    print(f"{spec.name}: {' '.join(spec.pinned(args.cuda))}")
    return Exit.PASS


def _lock(args: argparse.Namespace) -> int:
    from harness.envs import solve

    spec = solve.read_spec(args.spec)
    made = solve.lock(
        spec, cuda=args.cuda, platform=args.platform, channels=args.channel, tool=args.tool
    )
    path = args.output or Path(f"{spec.name}.lock.json")
    path.write_text(made.text())
    print(f"{path}: {len(made.packages)} packages, {made.digest}")
    return Exit.PASS


def _build(args: argparse.Namespace) -> int:
    from harness.cachetool import sign, work
    from harness.envs.build import build
    from harness.errors import UsageError
    from harness.state import cache_dir
    from installers.cache.cache import Cache
    from installers.cache.filestore import FileStore
    from installers.envfiles import lock_of

    try:
        lock = lock_of(args.lock.read_text(), str(args.lock))
    except OSError as error:
        raise UsageError(f"{args.lock}: {error.strerror}") from error
    store = work.open_url(args.store)
    local = store if isinstance(store, FileStore) else FileStore(cache_dir("environments"))
    with sign.signer(args.key, args.signer) as signer:
        cache = Cache([store], local, unsigned=signer is None, sign=signer)
        entry, new = build(lock, cache, cache_dir("environment-builds"))
    print(f"{lock.name}: {entry.key} ({'built' if new else 'was there'})")
    return Exit.PASS
