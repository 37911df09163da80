"""A specification becomes a lock: by mamba where there is one, by py-rattler otherwise.

Both read the machine's own configuration of proxy, CA and authentication: the environment variables
(``HTTPS_PROXY``, ``SSL_CERT_FILE``) and, for py-rattler, ``RATTLER_AUTH_FILE``.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.errors import InfraError, UsageError
from installers.envfiles import Lock, Package, Spec

#: A solve that takes longer has gone wrong.
TIMEOUT = 1800.0
_MAMBAS = ("micromamba", "mamba")
#: What a GPU node is, whatever machine solves: (name, version). The C library is Debian 12's.
_VIRTUAL = (("__unix", "0"), ("__linux", "6.1"), ("__glibc", "2.36"), ("__archspec", "1"))


def lock(
    spec: Spec,
    *,
    cuda: str | None = None,
    platform: str = "linux-64",
    channels: Sequence[str] = (),
    tool: str | None = None,
) -> Lock:
    """Solve. ``channels`` replace the specification's (mirrors); ``tool``: mamba or rattler.

    Raises UsageError for what cannot be solved, InfraError for a channel that does not answer.
    """
    packages, places = spec.pinned(cuda), tuple(channels) or spec.channels
    version = cuda or (spec.cuda.default if spec.cuda else None)
    mamba = next((found for name in _MAMBAS if (found := shutil.which(name))), None)
    if tool == "mamba" and mamba is None:
        raise UsageError("there is no mamba or micromamba here", hint="leave --tool out")
    if mamba is not None and tool != "rattler":
        rows = _by_mamba(mamba, packages, places, platform, version)
    else:
        rows = asyncio.run(_by_rattler(packages, places, platform, version))
    ordered = tuple(sorted(rows, key=lambda package: package.url))
    without = [package.url for package in ordered if len(package.sha256) != 64]
    if without:
        raise UsageError(f"{without[0]}: the channel states no SHA-256", hint="use another channel")
    return Lock(spec.name, platform, ordered, spec.imports)


def _by_mamba(
    mamba: str, packages: Sequence[str], channels: Sequence[str], platform: str, cuda: str | None
) -> list[Package]:
    words = [mamba, "create", "--dry-run", "--json", "--yes", "--override-channels"]
    words += ["--strict-channel-priority", "--platform", platform]
    words += [word for channel in channels for word in ("--channel", channel)]
    environment = {**os.environ, "CONDA_OVERRIDE_CUDA": cuda or ""}
    with tempfile.TemporaryDirectory() as folder:
        words += ["--prefix", f"{folder}/prefix", *packages]
        try:
            ran = subprocess.run(
                words, env=environment, capture_output=True, text=True, timeout=TIMEOUT, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise InfraError(f"{mamba} did not end within {TIMEOUT:.0f} s") from error
    try:
        answer = json.loads(ran.stdout)
    except ValueError as error:
        said = ran.stderr.strip().splitlines()[-1:] or ["no words"]
        raise InfraError(f"{mamba}: {said[0]}") from error
    if ran.returncode or not answer.get("success", True):
        why = answer.get("solver_problems") or answer.get("message") or ran.stderr.strip()[-300:]
        raise UsageError(f"{mamba}: {why}", hint="change the packages or the channels")
    return [_from_mamba(row) for row in answer["actions"]["LINK"]]


def _from_mamba(row: Mapping[str, Any]) -> Package:
    return Package(
        url=row["url"],
        sha256=row.get("sha256", ""),
        size=int(row.get("size", 0)),
        name=row["name"],
        version=row["version"],
        build=row.get("build_string") or row["build"],
        build_number=int(row["build_number"]),
        subdir=row["subdir"],
        noarch=row.get("noarch") or None,
        depends=tuple(row.get("depends", ())),
        site_packages=row.get("python_site_packages_path"),
    )


async def _by_rattler(
    packages: Sequence[str], channels: Sequence[str], platform: str, cuda: str | None
) -> list[Package]:
    import rattler

    virtual = [*_VIRTUAL, *([("__cuda", cuda)] if cuda else [])]
    with tempfile.TemporaryDirectory() as folder:
        gateway = rattler.Gateway(cache_dir=Path(folder), client=client())
        try:
            records = await asyncio.wait_for(
                rattler.solve(
                    sources=[rattler.Channel(channel) for channel in channels],
                    specs=list(packages),
                    gateway=gateway,
                    platforms=[platform, "noarch"],  # type: ignore[list-item]
                    virtual_packages=[
                        rattler.GenericVirtualPackage(
                            rattler.PackageName(name),
                            rattler.Version(version),
                            rattler.BuildString("0"),
                        )
                        for name, version in virtual
                    ],
                ),
                TIMEOUT,
            )
        except TimeoutError as error:
            raise InfraError(f"the solver did not end within {TIMEOUT:.0f} s") from error
        except Exception as error:  # rattler's errors have no common class
            text = str(error)
            if type(error).__name__ == "SolverError":
                raise UsageError(text, hint="change the packages or the channels") from error
            raise InfraError(f"{', '.join(channels)}: {text}") from error
    return [_from_rattler(record) for record in records]


def _from_rattler(record: Any) -> Package:
    noarch = record.noarch
    kind = "python" if noarch.python else "generic" if noarch.generic else None
    return Package(
        url=str(record.url),
        sha256=(record.sha256 or b"").hex(),
        size=record.size or 0,
        name=record.name.normalized,
        version=str(record.version),
        build=str(record.build),
        build_number=record.build_number,
        subdir=str(record.subdir),
        noarch=kind,
        depends=tuple(record.depends),
        site_packages=record.python_site_packages_path,
    )


def client() -> Any:
    """HTTP as the machine is configured, patient with servers that fail for a moment."""
    import rattler
    from rattler.networking import AuthenticationMiddleware, RetryMiddleware

    return rattler.Client([RetryMiddleware(), AuthenticationMiddleware()])


def read_spec(name: str) -> Spec:
    """A specification that ships, by name, or a file of the user's. Raises UsageError."""
    from installers import envfiles
    from installers.errors import ConfigError

    try:
        if name in envfiles.SHIPPED:
            return envfiles.shipped(name)
        return envfiles.spec_of(json.loads(Path(name).read_text()), name)
    except (OSError, ValueError) as error:
        hint = f"a file, or one of {', '.join(envfiles.SHIPPED)}"
        raise UsageError(f"{name}: {error}", hint=hint) from error
    except ConfigError as error:
        raise UsageError(str(error)) from error
