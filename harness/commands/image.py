"""``airlock image list``, ``airlock image build NAME``, ``airlock image probe [NAME...]``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from installers.exits import Exit

if TYPE_CHECKING:
    from harness.cells import Image


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument("action", choices=("list", "build", "probe"), help="what to do")
    parser.add_argument("images", nargs="*", metavar="NAME", help="the image to build, or to probe")
    parser.add_argument("--fresh", action="store_true", help="build it even if it is there")
    parser.add_argument(
        "--write",
        type=Path,
        metavar="DIR",
        help="probe: keep the table there, as kernel-trust.json and kernel-trust.md",
    )


def run(args: argparse.Namespace) -> int:
    """List the images, build one, or ask kernels whose modules they take."""
    from harness.catalog import load_catalog
    from harness.errors import UsageError
    from harness.names import nearest

    images = load_catalog().images
    if args.write and args.action != "probe":
        raise UsageError(f"airlock image {args.action} writes no table: --write goes with probe")
    if args.action == "list":
        if args.images or args.fresh:
            raise UsageError("airlock image list takes nothing more")
        return _list(images.values())
    for name in args.images:
        if name not in images:
            raise UsageError(f"unknown image {name!r}", hint=nearest(name, images))
    if args.action == "probe":
        if args.fresh:
            raise UsageError("airlock image probe measures anew each time; --fresh is for build")
        return _probe([images[name] for name in args.images] or list(images.values()), args.write)
    if len(args.images) != 1:
        raise UsageError("airlock image build needs a NAME", hint="airlock image list")
    return _build(images[args.images[0]], fresh=args.fresh)


def _list(images: Iterable[Image]) -> int:
    from harness.lab import base

    for image in images:
        found = base.find(image)
        state = f"built {found.built}, sha256:{found.digest[:12]}" if found else "not built"
        print(f"{image.name:12} {image.title:28} {state}")
    return Exit.PASS


def _build(image: Image, *, fresh: bool) -> int:
    import tempfile

    from harness.lab import base

    print(f"building {image.name}; a minute or more", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="airlock-") as folder:
        found = base.build(image, log=Path(folder) / "log", fresh=fresh)
    word = "was there" if found.cached else "built"
    print(f"{image.name}: {word}: sha256:{found.digest} {found.tar}")
    return Exit.PASS


def _probe(images: list[Image], directory: Path | None) -> int:
    """Measure each image; one that cannot be made does not hide the others."""
    from fixtures.pki import Authority
    from harness import trusttable
    from harness.errors import InfraError
    from harness.lab import keyprobe
    from harness.state import RunRecord, keys_dir
    from harness.sweep import sweep

    if directory is not None and not directory.is_dir():
        raise InfraError(f"--write: there is no directory {directory}")
    sweep()
    rows, failed = [], []
    with RunRecord() as run:
        key = Authority(keys_dir()).module
        for image in images:

            def say(line: str, name: str = image.name) -> None:
                print(f"{name}: {line}", file=sys.stderr, flush=True)

            try:
                row = keyprobe.probe(image, key, run, say)
            except InfraError as error:
                failed.append(image.name)
                say(f"not measured: {error}")
                continue
            rows.append(row)
            print(trusttable.line(row), flush=True)
            if directory is not None:
                trusttable.keep(row, directory)
    wrong = [said for row in rows for said in trusttable.differences(row)]
    for said in wrong:
        print(f"  {said}")
    if failed:
        return Exit.UNKNOWN
    return Exit.FAIL if wrong else Exit.PASS
