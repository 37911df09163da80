"""``airlock cache ls|verify|warm|gc``."""

from __future__ import annotations

import argparse
import re
import sys
from typing import TYPE_CHECKING

from installers.exits import Exit

if TYPE_CHECKING:
    from harness.cachetool.work import Say
    from installers.cache.manifest import Trust

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_TIMES = {"h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb, one word each."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    store = "file:///folder (or a path), gs://bucket/folder; ls and verify"
    ls = actions.add_parser("ls", help="the entries of a store")
    check = actions.add_parser("verify", help="read everything and compare; 1 if anything is bad")
    warm = actions.add_parser("warm", help="copy verified entries from one store to another")
    gc = actions.add_parser("gc", help="what may go; with --delete it goes")
    for action in (ls, check, gc):
        action.add_argument("store", metavar="STORE", help=store.partition(";")[0])
    warm.add_argument("source", metavar="FROM", help="the store that has the entries")
    warm.add_argument("target", metavar="TO", help="the store that is to have them")
    for action in (ls, check, warm):
        action.add_argument(
            "--trust",
            action="append",
            default=[],
            metavar="SHA256",
            help="fingerprint of a certificate whose entries are believed (may be repeated)",
        )
    check.add_argument("--quarantine", action="store_true", help="put what is bad aside")
    warm.add_argument("--entry", action="append", default=[], metavar="KEY", help="only this one")
    warm.add_argument("--plan", action="store_true", help="say what would be copied")
    warm.add_argument("--key", metavar="SPEC", help="sign with this key, as in 'airlock keys'")
    warm.add_argument("--signer", metavar="SOCKET", help="sign by this signing socket")
    gc.add_argument("--older-than", metavar="AGE", help="entries of this age: 12h, 30d, 8w")
    gc.add_argument("--keep-size", metavar="BYTES", help="keep the newest that fit: 500M, 20G")
    gc.add_argument("--delete", action="store_true", help="remove it")


def run(args: argparse.Namespace) -> int:
    """Do one of them."""
    from harness.cachetool import work

    actions = {"ls": _ls, "verify": _verify, "warm": _warm, "gc": _gc}
    return work.guarded(lambda: actions[args.action](args, print))


def _ls(args: argparse.Namespace, say: Say) -> int:
    from harness.cachetool import work

    count = size = 0
    for row in work.rows(work.open_url(args.store), _trust(args)):
        say(row.line)
        count += 1
        size += row.manifest.size if row.manifest else 0
    say(f"{count} entries, {size:,} bytes")
    return Exit.PASS


def _verify(args: argparse.Namespace, say: Say) -> int:
    from harness.cachetool import work

    store = work.open_url(args.store)
    bad = work.verify(store, _trust(args), say, quarantine=args.quarantine)
    say(f"{bad} bad entries" if bad else "every entry is good")
    return Exit.FAIL if bad else Exit.PASS


def _warm(args: argparse.Namespace, say: Say) -> int:
    from harness.cachetool import sign, work
    from harness.errors import UsageError
    from installers.cache.manifest import Trust

    trust = _trust(args)
    source, target = work.open_url(args.source), work.open_url(args.target)
    if not target.writable:
        raise UsageError(f"{target.url} cannot be written to")
    if source.shared and trust is None:
        raise UsageError(
            f"{source.url} is written by others: whom do you believe?",
            hint="--trust SHA256 of the certificate that its entries are signed with",
        )
    with sign.signer(args.key, args.signer) as signer:
        if target.shared and signer is None and not source.shared:
            warning = "unsigned entries: nodes take them with airlock-cache-unsigned only"
            print(warning, file=sys.stderr)
        copied, failed = work.warm(
            source,
            target,
            say,
            keys=args.entry,
            trust=trust or Trust(),
            sign=signer,
            plan=args.plan,
        )
    say(f"{copied} {'to copy' if args.plan else 'copied'}, {failed} left out")
    return Exit.FAIL if failed else Exit.PASS


def _gc(args: argparse.Namespace, say: Say) -> int:
    from harness.cachetool import work

    older = _age(args.older_than) if args.older_than else None
    size = _size(args.keep_size) if args.keep_size else None
    store = work.open_url(args.store)
    found = work.rubbish(store, older, size)
    count = len(found.entries) + len(found.objects) + len(found.others)
    if args.delete:
        say(f"{work.remove(store, found, say)} objects removed, {found.size:,} bytes")
        return Exit.PASS
    for name in (*found.entries, *found.objects, *found.others):
        say(f"would remove  {name}")
    say(f"{count} objects, {found.size:,} bytes; nothing was removed (--delete)")
    return Exit.PASS


def _trust(args: argparse.Namespace) -> Trust | None:
    from harness.errors import UsageError
    from installers.cache.manifest import Trust

    for pin in args.trust:
        if not re.fullmatch(r"[0-9a-fA-F]{64}", pin):
            raise UsageError(f"--trust {pin[:80]} is not a SHA-256 fingerprint of 64 hex digits")
    return Trust(frozenset(pin.lower() for pin in args.trust)) if args.trust else None


def _age(text: str) -> float:
    from harness.errors import UsageError

    match = re.fullmatch(r"(\d+)([hdw])", text)
    if not match:
        raise UsageError(f"--older-than {text}: is no age", hint="write 12h, 30d or 8w")
    return int(match[1]) * _TIMES[match[2]]


def _size(text: str) -> int:
    from harness.errors import UsageError

    match = re.fullmatch(r"(\d+)([kKmMgGtT]?)", text)
    if not match:
        raise UsageError(f"--keep-size {text}: is no size", hint="write 500M or 20G")
    return int(match[1]) * _UNITS[match[2].lower()]
