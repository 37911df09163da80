"""The published table of which keys a kernel takes for modules: kept, judged, printed.

``kernel-trust.json`` holds one row for each image as ``harness.lab.keyprobe`` measured it, and
``kernel-trust.md`` is printed from it. ``installers/data/kernel_trust.json`` is what the installers
act on; ``differences`` says where the two do not agree.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from installers.compat import db_trust
from reports.write import write_atomically

DATA = "kernel-trust.json"
TEXT = "kernel-trust.md"
_HEAD = """\
# Whose modules a kernel takes

Under Secure Boot a distribution's kernel refuses modules that nobody it trusts has signed. Whom it
trusts differs: mainline Linux takes no key from the firmware's `db`, distributions patch that in,
and no package says so. So we ask.

`airlock image probe --write docs` builds a module that does nothing for each image's kernel, signs
it with the lab's key, boots the image with Secure Boot on, and offers the module without a
signature and with it: once with the key's certificate in `db`, once in shim's list of the machine
owner's keys (MOK), once nowhere, and once in both of them and in the firmware's `dbx`, as
`airlock keys revoke` writes it.

| image | kernel | in `db` | in MOK | nowhere | revoked | unsigned | lockdown | measured |
|---|---|---|---|---|---|---|---|---|
"""
_TAIL = """
*taken* means that the module was loaded; otherwise the kernel's error is named. *Nowhere* and
*unsigned* must be refusals: a kernel that takes anything proves nothing. What the kernel logged is
in [kernel-trust.json](kernel-trust.json).

A kernel that takes a module by a *revoked* key does not heed `dbx` for modules: there a key is
revoked by taking it out of `db` and out of MOK. Kernels compare certificates with those in `dbx`
where they are built with `CONFIG_SYSTEM_REVOCATION_LIST`. The other form of entry, a certificate's
hash and the time of its revocation, is compared with time and all, so no hash ever equals it
(`uefi_blacklist_x509_tbs` in `security/integrity/platform_certs/keyring_handler.c`).
"""

Row = Mapping[str, Any]


def takes(row: Row, case: str) -> bool:
    """Whether the module that was signed was loaded in this case."""
    return bool(row["cases"][case]["signed"]["errno"] == "")


def differences(row: Row) -> list[str]:
    """What is wrong with a row: it proves nothing, or the installers' table says otherwise."""
    name = f"{row['image']}, kernel {row['kernel']}"
    wrong = []
    for case, told in row["cases"].items():
        if told["unsigned"]["errno"] == "":
            wrong.append(f"{name}: took a module without a signature, with the key in {case}")
        if not told["boot"]["enabled"]:
            wrong.append(f"{name}: Secure Boot was not on, with the key in {case}")
    if takes(row, "neither"):
        wrong.append(f"{name}: took a module that a stranger signed")
    told = db_trust(row["os"], row["kernel"]).trusts_db
    if told is not takes(row, "db"):
        word = {True: "taken", False: "refused", None: "not known"}
        wrong.append(
            f"{name}: a module by a key in db is {word[takes(row, 'db')]}; "
            f"the installers' table says {word[told]}"
        )
    return wrong


def line(row: Row) -> str:
    """One row for a terminal."""
    cases = ", ".join(f"{case}: {_answer(row, case)}" for case in row["cases"])
    return f"{row['image']} ({row['kernel']}): {cases}"


def keep(row: Row, directory: Path) -> None:
    """Put a row into the table in ``directory``, in the place of the image's last one."""
    rows = {other["image"]: other for other in read(directory)} | {row["image"]: row}
    ordered = sorted(rows.values(), key=lambda row: str(row["image"]))
    data = json.dumps({"schema": 1, "rows": ordered}, indent=1) + "\n"
    write_atomically(directory / DATA, data.encode())
    write_atomically(directory / TEXT, render(ordered).encode())


def read(directory: Path) -> list[Row]:
    """The rows of the table in ``directory``; none where there is no table."""
    try:
        rows: list[Row] = json.loads((directory / DATA).read_text())["rows"]
    except FileNotFoundError:
        return []
    return rows


def render(rows: list[Row]) -> str:
    """The table as a page."""
    lines = []
    for row in rows:
        unsigned = {told["unsigned"]["errno"] or "taken" for told in row["cases"].values()}
        locks = {told["boot"]["lockdown"] or "unknown" for told in row["cases"].values()}
        answers = [_answer(row, case) for case in ("db", "mok", "neither", "revoked")]
        cells = [row["title"], f"`{row['kernel']}`", *answers, ", ".join(sorted(unsigned))]
        lines.append(f"| {' | '.join([*cells, ', '.join(sorted(locks)), row['measured']])} |\n")
    return _HEAD + "".join(lines) + _TAIL


def _answer(row: Row, case: str) -> str:
    if (told := row["cases"].get(case)) is None:
        return "not asked"
    return str(told["signed"]["errno"]) or "taken"
