"""``airlock image list``, ``build NAME``, ``inspect NAME``, ``probe [NAME...]``.

Where a NAME is wanted a vendor's disk may stand by its path or address (see harness.vendordisk).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from installers.exits import Exit

if TYPE_CHECKING:
    from harness.cells import Image


_ACTIONS = ("list", "build", "inspect", "probe")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument("action", choices=_ACTIONS, help="what to do")
    parser.add_argument(
        "images",
        nargs="*",
        metavar="NAME",
        help="the image: a name, a qcow2 or raw file, or URL#sha256=HEX",
    )
    parser.add_argument("--fresh", action="store_true", help="build it even if it is there")
    parser.add_argument(
        "--mirror", metavar="URL", default="", help="build: where the distribution's packages are"
    )
    parser.add_argument(
        "--write",
        type=Path,
        metavar="DIR",
        help="probe: keep the table there, as kernel-trust.json and kernel-trust.md",
    )


def run(args: argparse.Namespace) -> int:
    """List the images, build one or look at it, or ask kernels whose modules they take."""
    from dataclasses import replace

    from harness.catalog import load_catalog
    from harness.errors import UsageError

    catalog = load_catalog()
    if args.write and args.action != "probe":
        raise UsageError(f"airlock image {args.action} writes no table: --write goes with probe")
    if args.mirror and args.action != "build":
        raise UsageError(f"airlock image {args.action} fetches no packages: --mirror is for build")
    if args.fresh and args.action != "build":
        raise UsageError(f"airlock image {args.action} makes nothing: --fresh is for build")
    if args.action == "list":
        if args.images:
            raise UsageError("airlock image list takes nothing more")
        return _list(catalog.images.values())
    images = [catalog.image(name) for name in args.images]
    if args.action == "probe":
        return _probe(_probed(images or catalog.images.values(), bool(images)), args.write)
    if len(images) != 1:
        raise UsageError(f"airlock image {args.action} needs a NAME", hint="airlock image list")
    if args.action == "inspect":
        return _inspect(images[0])
    if args.mirror and images[0].cloud:
        raise UsageError(f"{images[0].name} is a vendor's disk: it is not made of packages")
    return _build(replace(images[0], mirror=args.mirror or images[0].mirror), fresh=args.fresh)


def _list(images: Iterable[Image]) -> int:
    from harness.lab import base, cloud

    for image in images:
        found = cloud.find(image) if image.cloud else base.find(image)
        state = f"built {found.built}, sha256:{found.digest[:12]}" if found else "not built"
        print(f"{image.name:12} {image.title:28} {state}")
    return Exit.PASS


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _build(image: Image, *, fresh: bool) -> int:
    import tempfile

    from harness.errors import UsageError
    from harness.lab import base, cloud

    if image.cloud:
        disk = cloud.take(image, _say, fresh=fresh)
        disk.inspection.require_bootable(image.name)
        print(f"{image.name}: {_word(disk.cached)}: sha256:{disk.digest} {disk.raw}")
        return Exit.PASS
    if refusal := base.refusal(image):
        raise UsageError(refusal.reason, hint=refusal.remedy)
    print(f"building {image.name}; a minute or more", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="airlock-") as folder:
        found = base.build(image, log=Path(folder) / "log", fresh=fresh)
    print(f"{image.name}: {_word(found.cached)}: sha256:{found.digest} {found.tar}")
    return Exit.PASS


def _word(cached: bool) -> str:
    return "was there" if cached else "built"


def _inspect(image: Image) -> int:
    """What is on a vendor's disk, and whether it can be run here."""
    from harness.errors import UsageError
    from harness.lab import cloud

    if not image.cloud:
        raise UsageError(
            f"{image.name} is made of packages: what is in it is what images.toml says",
            hint="name a qcow2 or raw file, or an image of kind cloud",
        )
    disk = cloud.take(image, _say)
    print(f"image       {image.name}, sha256:{disk.digest}")
    for line in disk.inspection.lines():
        print(line)
    disk.inspection.require_bootable(image.name)
    return Exit.PASS


def _probed(images: Iterable[Image], named: bool) -> list[Image]:
    """Those that can be asked: the question is compiled for the image, of its packages."""
    from harness.errors import UsageError

    asked = []
    for image in images:
        if not image.cloud:
            asked.append(image)
        elif named:
            raise UsageError(
                f"{image.name} is a vendor's disk: probe compiles its question of packages",
                hint="airlock run --image shows what its kernel takes",
            )
    return asked


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
