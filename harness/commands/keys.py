"""``airlock keys``: module signing keys, and who signs with them."""

from __future__ import annotations

import argparse
import ssl
import threading
from pathlib import Path

from installers.exits import Exit


def arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's own verbs."""
    verbs = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    for name, about in (
        ("create", "make a key pair, and the lists that an image's db is to hold"),
        ("rotate", "make the next key pair; the old certificate stays trusted until revoked"),
    ):
        one = verbs.add_parser(name, help=about)
        one.add_argument("directory", type=Path, metavar="DIR")
        one.add_argument("--name", default="Airlock module signing", help="the certificate's name")
        one.add_argument(
            "--secret",
            default="",
            metavar="projects/P/secrets/S",
            help="keep the key in Secret Manager as S-priv and S-pub, and not in DIR",
        )
    one = verbs.add_parser("revoke", help="put a retired certificate into dbx")
    one.add_argument("directory", type=Path, metavar="DIR")
    one.add_argument("fingerprint", metavar="SHA256", help="or its beginning")
    for name, about in (
        ("serve", "sign modules for builds, over a socket"),
        ("sign", "sign module files in place (.ko, .ko.xz, .ko.zst, .ko.gz)"),
    ):
        one = verbs.add_parser(name, help=about)
        one.add_argument("--key", required=True, metavar="SPEC", help="file:, secret-manager:, ...")
        one.add_argument("--fingerprint", default="", metavar="SHA256", help="expected certificate")
        if name == "sign":
            one.add_argument("file", type=Path, nargs="+", metavar="FILE")
            continue
        one.add_argument("--socket", type=Path, metavar="PATH", help="a unix socket (0600)")
        one.add_argument(
            "--listen", default="", metavar="HOST:PORT", help="TLS, for other machines"
        )
        one.add_argument(
            "--identity", type=Path, metavar="FILE", help="our TLS key and certificate"
        )
        one.add_argument("--clients", type=Path, metavar="FILE", help="the CA of those who may ask")


def run(args: argparse.Namespace) -> int:
    """One of the verb's verbs; returns the exit code."""
    if args.what == "serve":
        return _serve(args, threading.Event())
    if args.what == "sign":
        return _sign(args)
    from harness.keyring import Keyring, describe

    ring = Keyring(args.directory)
    if args.what == "revoke":
        gone = ring.revoke(args.fingerprint)
        print(f"revoked {gone.sha256} ({gone.subject_cn})")
        print(f"build images anew with {args.directory}/db and {args.directory}/dbx")
        print("take it out of MOK as well, where it is: many kernels do not heed dbx for modules")
        return Exit.PASS
    make = ring.create if args.what == "create" else ring.rotate
    for line in describe(make(args.name, secret=args.secret)):
        print(line)
    return Exit.PASS


def _sign(args: argparse.Namespace) -> int:
    from harness.errors import InfraError
    from harness.signers.spec import open_key
    from installers import signfile
    from installers.errors import NodeError

    with open_key(args.key, args.fingerprint) as key:
        for path in args.file:
            try:
                changed = signfile.sign_file(path, key.sign, key.certificate)
            except NodeError as error:
                raise InfraError(str(error)) from error
            print(f"{path}: {'signed' if changed else 'was signed already'}")
    return Exit.PASS


def _serve(args: argparse.Namespace, stop: threading.Event) -> int:
    from fixtures.errors import FixtureError
    from fixtures.signer import SignerServer
    from harness.errors import InfraError, UsageError
    from harness.signers.base import OneKey
    from harness.signers.spec import open_key

    if bool(args.socket) == bool(args.listen):
        raise UsageError("name --socket or --listen, and not both")
    address, tls = (_address(args.listen), _tls(args)) if args.listen else (None, None)
    with open_key(args.key, args.fingerprint) as key:
        path = args.socket or Path("unused")
        try:
            with SignerServer(OneKey(key), path, address=address, tls=tls) as server:
                place = f"{server.address[0]}:{server.address[1]}" if server.address else str(path)
                print(f"signing with {key.sha256} on {place}", flush=True)
                stop.wait()
        except FixtureError as error:
            raise InfraError(error.message) from error
    return Exit.PASS


def _address(text: str) -> tuple[str, int]:
    from harness.errors import UsageError

    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise UsageError(f"--listen {text}: is not HOST:PORT")
    return host, int(port)


def _tls(args: argparse.Namespace) -> ssl.SSLContext:
    """A server's context that answers nobody without a certificate of ``--clients``."""
    from harness.errors import UsageError

    if not args.identity or not args.clients:
        raise UsageError("--listen needs --identity and --clients: who asks must be known")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        context.load_cert_chain(str(args.identity))
        context.load_verify_locations(str(args.clients))
    except (OSError, ssl.SSLError) as error:
        raise UsageError(f"{args.identity} or {args.clients}: {error}") from error
    return context
