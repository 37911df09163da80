"""``airlock-node.pyz``: plan, apply, verify, remove; and the verbs of the facts channel."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional

from installers import metadata, registry
from installers.config import METADATA_SERVER, Config, from_attributes
from installers.engine import Engine, Summary, shown_change
from installers.errors import ConfigError, NodeError, UnreachableError, describe_defect
from installers.exits import Exit
from installers.host import Host
from installers.journal import Journal, read_state
from installers.lock import lock
from installers.redact import redact_text

VERBS = ("plan", "apply", "verify", "remove")
# Verbs with a command line of their own, loaded only when asked for.
OTHERS = {
    "facts": "installers.facts",
    "agent": "installers.agent",
    "audit-modules": "installers.audit",
    "sign-modules": "installers.signfile",
    "new-kernel": "installers.newkernel",
    "probe": "installers.probe",
    "cards": "installers.collect.cards",
    "lint": "installers.noproxy_lint",
    "gpu-config": "installers.deferred.boot",
    "preflight": "installers.kubernetes.preflight",
    "user-data": "installers.kubernetes.userdata",
}


def main(args: Optional[list[str]] = None) -> int:
    """Run one verb; the exit code of the process. Errors are one line on stderr."""
    argv = sys.argv[1:] if args is None else args
    try:
        if argv and argv[0] in OTHERS:
            verb: Callable[[list[str]], int] = importlib.import_module(OTHERS[argv[0]]).main
            return verb(argv[1:])
        return _verb(_parser().parse_args(argv))
    except KeyboardInterrupt:
        _say("interrupted; run it again to go on")
        return int(Exit.UNKNOWN)
    except BrokenPipeError:
        # Whoever read our output is gone; keep the interpreter from complaining at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return int(Exit.UNKNOWN)
    except NodeError as error:
        _say(str(error))
        return int(error.exit)
    except Exception as error:
        # A defect of ours is still one line; its text may hold a URL.
        _say(f"{redact_text(describe_defect(error))}; report this as a defect")
        return int(Exit.UNKNOWN)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="airlock-node.pyz",
        description="Makes this machine, or an image, a node that works behind its proxy.",
        epilog=f"Further verbs: {', '.join(OTHERS)}. "
        "Exit codes: 0 right, 1 the node is not, 2 usage or metadata, 3 could not tell.",
    )
    parser.add_argument("verb", choices=VERBS)
    parser.add_argument("--root", default="/", metavar="DIR", help="root of a mounted image")
    parser.add_argument(
        "--metadata",
        default=METADATA_SERVER,
        metavar="FILE.json|URL",
        help=f"where the attributes are (default: {METADATA_SERVER})",
    )
    parser.add_argument("--only", metavar="NAME,...", help=f"of {', '.join(registry.ORDER)}")
    parser.add_argument(
        "--kernel", default="", metavar="RELEASE", help="in place of airlock-boot-kernel"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _verb(options: argparse.Namespace) -> int:
    if not Path(options.root).is_dir():
        raise ConfigError("is not a directory", where=f"--root {options.root}")
    host = Host(options.root, offline=options.verb == "plan")
    try:
        names = registry.select(options.only)
        with lock(host) if options.verb != "plan" else contextlib.nullcontext():
            # A state that we cannot read is no reason to begin.
            read_state(host)
            config = _config(host, options)
            host.hide(config.proxy.secrets)
            engine = Engine(
                host,
                registry.load(names, config),
                registry.load([n for n in registry.SESSIONS if n not in names], config),
            )
            summary: Summary = getattr(engine, options.verb)()
    except NodeError as error:
        if not options.json:
            raise
        problem = {"what": error.what, "where": error.where, "remedy": error.remedy}
        print(json.dumps({"installers": [], "error": problem, "exit": int(error.exit)}))
        return int(error.exit)
    warned = _warned(summary, config) if options.verb == "apply" else Exit.PASS
    shown = Exit.PASS if warned else summary.exit
    if options.json:
        answer = {**summary.as_json(host), "warned": int(warned), "exit": int(shown)}
        print(json.dumps(answer))
    else:
        print(_text(options.verb, summary, host))
    if warned:
        _say(f"warning: this would end with {int(warned)}, and airlock-policy=warn makes it 0")
    return int(shown)


def _warned(summary: Summary, config: Config) -> Exit:
    """What the policy turns into a warning: the node's fault or the network's, never a key's."""
    told = summary.exit in (Exit.FAIL, Exit.UNKNOWN)
    return summary.exit if config.warn_only and told else Exit.PASS


def _config(host: Host, options: argparse.Namespace) -> Config:
    try:
        attributes = metadata.load(options.metadata, patience=metadata.PATIENCE)
        if options.kernel:
            attributes["airlock-boot-kernel"] = options.kernel
        return from_attributes(attributes, options.metadata)
    except NodeError as error:
        if options.verb == "apply":
            Journal(host).write(
                "metadata", "read", "fail", source=options.metadata, error=str(error)
            )
        if options.verb == "remove" and isinstance(error, UnreachableError):
            # Undoing our work must be possible on a node that lost its metadata server.
            return Config(source=options.metadata)
        raise


def _text(verb: str, summary: Summary, host: Host) -> str:
    shown = summary.as_json(host)
    lines: list[str] = []
    for outcome, record in zip(summary.installers, shown["installers"]):  # noqa: B905 - 3.9
        took = f" in {outcome.seconds:.1f} s" if outcome.seconds else ""
        lines.append(f"{outcome.name}: {outcome.outcome}{took}")
        lines += _changes([shown_change(change, host) for change in outcome.changes])
        for refusal in record["refusals"]:
            lines.append(f"  refused ({refusal['code']}): {refusal['reason']}")
            lines.append(f"    way out: {refusal['remedy']}")
        for problem in record["problems"]:
            lines.append(f"  problem: {problem['what']}")
            if problem["remedy"]:
                lines.append(f"    remedy: {problem['remedy']}")
        lines += [f"  note: {note}" for note in record["notes"]]
    if summary.not_run:
        lines.append(f"not run: {', '.join(summary.not_run)}")
    if verb == "plan":
        lines += _contract(shown["contract"])
    return "\n".join(lines)


def _changes(changes: list[dict[str, Any]]) -> list[str]:
    """One line for all settings of a tool that change alike."""

    def value(one: Any) -> str:
        return "(absent)" if one is None else one if isinstance(one, str) else json.dumps(one)

    alike: dict[tuple[str, str], list[str]] = {}
    for change in changes:
        tool, colon, setting = change["key"].partition(":")
        note = f" ({change['note']})" if "note" in change else ""
        what = f"{value(change['before'])} -> {value(change['after'])}{note}"
        alike.setdefault((tool + colon, what), []).append(setting)
    return [f"  {tool}{', '.join(names)}: {what}" for (tool, what), names in alike.items()]


def _contract(contract: dict[str, Any]) -> list[str]:
    size = contract["bytes"]
    lines = ["contract:"]
    lines.append(f"  hosts contacted: {', '.join(contract['hosts']) or 'none'}")
    lines.append(f"  bytes fetched: {'not known' if size is None else f'at most {size}'}")
    for path, need in sorted(contract["disk"].items()):
        lines.append(f"  disk: {path} {need >> 10} KiB")
    lines.append(f"  keys: {', '.join(contract['keys']) or 'none'}")
    lines += [f"  note: {note}" for note in contract["notes"]]
    return lines


def _say(message: str) -> None:
    print(f"airlock-node: {message}", file=sys.stderr)
