"""``airlock image list`` and ``airlock image build NAME``."""

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
    parser.add_argument("action", choices=("list", "build"), help="what to do")
    parser.add_argument("image", nargs="?", metavar="NAME", help="the image to build")
    parser.add_argument("--fresh", action="store_true", help="build it even if it is there")


def run(args: argparse.Namespace) -> int:
    """List the images, or build one."""
    from harness.catalog import load_catalog
    from harness.errors import UsageError
    from harness.names import nearest

    images = load_catalog().images
    if args.action == "list":
        if args.image or args.fresh:
            raise UsageError("airlock image list takes nothing more")
        return _list(images.values())
    if not args.image:
        raise UsageError("airlock image build needs a NAME", hint="airlock image list")
    if args.image not in images:
        raise UsageError(f"unknown image {args.image!r}", hint=nearest(args.image, images))
    return _build(images[args.image], fresh=args.fresh)


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
