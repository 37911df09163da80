"""``airlock gce up|down|ledger|image|trust``: Google Cloud around the nodes, by hand."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from installers.exits import Exit

if TYPE_CHECKING:
    from harness.cloud.journal import Journal
    from harness.cloud.network import Site
    from harness.providers.gce_config import Config


def arguments(parser: argparse.ArgumentParser) -> None:
    """Actions and their options."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    up = actions.add_parser("up", help="make the network and its proxy, or what is missing of it")
    down = actions.add_parser("down", help="remove what up made, and nothing else")
    ledger = actions.add_parser("ledger", help="the requests that the proxy saw")
    image = actions.add_parser("image", help="which image is meant, and what the API says of it")
    trust = actions.add_parser("trust", help="an image that trusts our certificate for modules")
    for one in (up, down, ledger, image, trust):
        one.add_argument("--project", default="", metavar="P", help="(default: gce.toml's)")
    for one in (up, down, ledger):
        one.add_argument("--name", default="airlock", metavar="N", help="the network")
    up.add_argument("--zone", default="", metavar="Z", help="the proxy's (default: gce.toml's)")
    up.add_argument("--nodes", metavar="RANGE", help="the nodes' subnet (10.126.0.0/24)")
    up.add_argument("--proxy", metavar="RANGE", help="the proxy's subnet (10.126.1.0/28)")
    up.add_argument("--machine-type", metavar="T", help="the proxy's (e2-small)")
    up.add_argument("--proxy-image", dest="image", metavar="I", help="a Debian (its family 12)")
    up.add_argument("--hours", type=int, metavar="H", help="Google ends the proxy then (12)")
    up.add_argument(
        "--tunnel", action=argparse.BooleanOptionalAction, help="the proxy does not open TLS"
    )
    up.add_argument(
        "--allow", action="append", metavar="DOMAIN", help="the proxy lets nodes reach these only"
    )
    up.add_argument("--verify", action="store_true", help="only look; exit 1 if it is not closed")
    down.add_argument(
        "--made-by", default="", metavar="ID", help="the id that up printed on another machine"
    )
    down.add_argument("--zone", default="", metavar="Z", help="with --made-by")
    for one in (up, down, trust):
        one.add_argument("--yes", action="store_true", help="do not ask")
    ledger.add_argument("--client", default="", metavar="ADDRESS", help="of one node")
    ledger.add_argument("--raw", type=Path, metavar="FILE", help="the log itself, to a file")
    for one in (image, trust):
        one.add_argument("image", metavar="IMAGE", help="a URL, a family, or dataproc:VERSION")
    trust.add_argument("new", metavar="NAME", help="what to call the new one")
    trust.add_argument("--certificate", type=Path, action="append", required=True, metavar="FILE")
    trust.add_argument("--revoked", type=Path, action="append", default=[], metavar="FILE")
    trust.add_argument("--family", default="", metavar="F", help="of the new one")
    image.add_argument("--json", action="store_true", help="for programs")


def run(args: argparse.Namespace) -> int:
    """Do one action."""
    from harness.cloud.journal import opened
    from harness.errors import UsageError

    config = read()
    project = project_of(args, config)
    if args.action == "image":
        return _image(args, project)
    if args.action == "trust":
        return _trust(args, project)
    with opened(project, args.name) as journal:
        if args.action == "up":
            return _up(args, project, config, journal)
        if args.action == "down":
            return _down(args, project, config, journal)
        if journal.site is None:
            raise UsageError(
                f"{args.name}: not made from here, and only who made it has the proxy's key"
            )
        return _ledger(args, journal.site)


def _up(args: argparse.Namespace, project: str, config: Config | None, journal: Journal) -> int:
    from harness.cloud import upkeep
    from harness.cloud.api import Google
    from harness.cloud.compare import Action

    site = site_of(args, project, config, journal.site)
    api = Google(project)
    if args.verify:
        steps, findings = upkeep.verify(api, site, journal)
        otherwise = [step for step in steps if step.action is not Action.KEEP]
        for line in upkeep.described(steps):
            print(line)
        bad = _findings(findings)
        print(f"{site.name}: {'not ' if otherwise or bad else ''}as it should be")
        return Exit.FAIL if otherwise or bad else Exit.PASS
    if not upkeep.up(api, site, journal, config, _asker(args.yes), _say):
        print(f"{site.name} is up: nothing to do")
    findings = upkeep.look(api, site)
    if _findings(findings, quiet=True):
        return Exit.FAIL
    certificate = upkeep.await_proxy(api, site, _say)
    print(f"{site.name} is up in {site.region} (run {journal.run}). For gce.toml:")
    print(f'  subnetwork = "{site.subnet.rpartition("/")[2]}"')
    print(f'  [proxy]\n  url = "{site.proxy_url}"\n  network = "{site.name}"')
    print(f"  intercept = {'true' if site.intercept else 'false'}")
    if certificate is not None:
        print(f'  ca_sha256 = "{certificate.sha256}"')
        print(f"the proxy's CA: {upkeep.ca_path(site)}")
    return Exit.PASS


def _down(args: argparse.Namespace, project: str, config: Config | None, journal: Journal) -> int:
    from harness.cloud import upkeep
    from harness.cloud.api import Google
    from harness.errors import UsageError

    site = journal.site
    if args.made_by:
        site = site_of(args, project, config)
        journal.adopt(site, args.made_by, upkeep.wanted(site, journal))
    if site is None:
        raise UsageError(
            f"{args.name}: nothing of that name was made from here",
            hint="--made-by ID, which `airlock gce up` printed where it ran",
        )
    count = upkeep.down(Google(project), journal, site, _asker(args.yes), _say)
    print(f"{site.name} is down: {count} removed" if count else f"{site.name}: nothing was left")
    return Exit.PASS


def _ledger(args: argparse.Namespace, site: Site) -> int:
    import json
    from contextlib import closing

    from fixtures.ledger import from_log
    from harness.cloud.ledger import ProxyLog
    from harness.providers.gce_api import Api

    with closing(ProxyLog(Api(site.project), site)) as log:
        if args.raw:
            log.fetch(args.raw, client=args.client)
        else:
            print(json.dumps(from_log(log.rows(client=args.client), []), indent=1))
    return Exit.PASS


def _image(args: argparse.Namespace, project: str) -> int:
    import json
    from dataclasses import asdict

    from harness.cloud.api import Google
    from harness.cloud.images import refusal

    found = Google(project).image(args.image)
    if args.json:
        print(json.dumps(asdict(found), indent=1, default=str))
    else:
        print(f"{found.link}, id {found.id}, made {found.created:%Y-%m-%d %H:%M %Z}")
        for key, value in asdict(found).items():
            if key not in ("project", "name", "id", "created") and value:
                print(f"  {key}: {_shown(value)}")
    if why := refusal(found):
        print(f"cannot be used: {why}", file=sys.stderr)
        return Exit.FAIL
    return Exit.PASS


def _trust(args: argparse.Namespace, project: str) -> int:
    import datetime as dt

    from harness import keydb
    from harness.cloud import images
    from harness.cloud.api import Google
    from harness.errors import UsageError
    from harness.signers.base import certificate_of

    ours, revoked = (
        [certificate_of(_read(path), str(path)) for path in paths]
        for paths in (args.certificate, args.revoked)
    )
    api = Google(project)
    base = api.image(args.image)
    if why := images.refusal(base):
        raise UsageError(why, hint="name another image")
    for line in keydb.warnings(keydb.microsoft(), dt.datetime.now(dt.UTC)):
        _say(f"  {line}")
    _say(f"  make image {args.new} of {base.link}, id {base.id}: kept, and paid for, until removed")
    _asker(args.yes)(f"make this in {project}?")
    state = images.initial_state(ours, revoked)
    made = api.make_image(images.trusting(base, args.new, state, family=args.family))
    if lacking := images.trusts(made, ours):
        print(f"{made.link} does not have {', '.join(lacking)}", file=sys.stderr)
        return Exit.FAIL
    print(f'{made.link}, id {made.id}. For gce.toml: source = "{made.link}", own_keys = true')
    return Exit.PASS


def _read(path: Path) -> bytes:
    from harness.errors import UsageError

    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from error


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}={text}" for key, text in sorted(value.items()))
    return ", ".join(map(str, value)) if isinstance(value, tuple | list) else str(value)


def read() -> Config | None:
    """``gce.toml``, if there is one."""
    from harness.providers.gce_config import config_path, read_config

    return read_config() if config_path().is_file() else None


def project_of(args: argparse.Namespace, config: Config | None) -> str:
    """The option's, or the file's. UsageError without either."""
    from harness.errors import UsageError

    project: str = args.project or (config.project if config else "")
    if not project:
        raise UsageError("which project?", hint="--project, or gce.toml (docs/gce.md)")
    return project


def site_of(
    args: argparse.Namespace, project: str, config: Config | None, known: Site | None = None
) -> Site:
    """What the options say, and else the network as it was made, and else the file."""
    from dataclasses import replace

    from harness.cloud.network import Site
    from harness.errors import UsageError

    zone = args.zone or (known.zone if known else config.zones[0] if config else "")
    if not zone:
        raise UsageError("which zone?", hint="--zone, or gce.toml (docs/gce.md)")
    names = ("nodes", "proxy", "machine_type", "image", "hours")
    given = {name: getattr(args, name, None) for name in names}
    values: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if getattr(args, "allow", None):
        values["allow"] = tuple(args.allow)
    if getattr(args, "tunnel", None) is not None:
        values["intercept"] = not args.tunnel
    return replace(known or Site(project, zone, args.name), zone=zone, **values)


def _findings(findings: list[Any], *, quiet: bool = False) -> bool:
    """Print them; whether one is bad."""
    from harness.commands.doctor import MARKS

    for one in findings:
        if one.level == "ok" and quiet:
            continue
        print(f"{MARKS[one.level]} {one.name}: {one.what}")
        if one.level != "ok" and one.fix:
            print(f"    fix: {one.fix}")
    return any(one.level == "missing" for one in findings)


def _asker(yes: bool) -> Any:
    """Asks on the terminal; without one, and without ``--yes``, the answer is no."""
    from harness.errors import UsageError

    def ask(question: str) -> None:
        if yes:
            return
        if not sys.stdin.isatty():
            raise UsageError(f"{question} There is no terminal to ask on", hint="--yes")
        if input(f"{question} [y/N] ").strip().lower() not in ("y", "yes"):
            raise UsageError("nothing was changed")

    return ask


def _say(line: str) -> None:
    print(line, file=sys.stderr)
