"""Hadoop's and Spark's own jars: by Maven from where this machine's settings say, kept and pinned.

``jars.sha256`` names each by checksum and coordinates; a jar that is another one is an error.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

from harness.lab.base import canonical
from harness.state import cache_dir, exclusive

HERE = Path(__file__).parent
PINS = HERE / "jars.sha256"
_POM = """<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>t</groupId><artifactId>t</artifactId><version>1</version><dependencies>%s</dependencies>
</project>"""
_ONE = """<dependency><groupId>%s</groupId><artifactId>%s</artifactId><version>%s</version>%s
<exclusions><exclusion><groupId>*</groupId><artifactId>*</artifactId></exclusion></exclusions>
</dependency>"""


def jars() -> Path:
    """The directory of all jars. Skips where there is no JDK or Maven, or it reaches nothing."""
    for program in ("javac", "mvn"):
        if shutil.which(program) is None:
            pytest.skip(f"needs {program}")
    pins = [line.split() for line in PINS.read_text().splitlines()]
    wanted = {digest for digest, _ in pins}
    directory = cache_dir("jars") / canonical(sorted(wanted))[:32]
    with exclusive(directory):
        if not directory.is_dir():
            _get([coordinates for _, coordinates in pins], directory)
    found = {hashlib.sha256(path.read_bytes()).hexdigest() for path in directory.glob("*.jar")}
    assert found == wanted, f"{directory}: these are other jars than {PINS.name} names"
    return directory


def _get(coordinates: list[str], directory: Path) -> None:
    partial = directory.with_name(directory.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    parts = [one.split(":") for one in coordinates]
    dependencies = [
        _ONE % (*part[:3], f"<classifier>{part[3]}</classifier>" if len(part) > 3 else "")
        for part in parts
    ]
    (partial / "pom.xml").write_text(_POM % "".join(dependencies))
    command = ["mvn", "-q", "-B", "dependency:copy-dependencies", f"-DoutputDirectory={partial}"]
    done = subprocess.run(command, cwd=partial, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"Maven reaches no repository: {done.stdout[-300:]}")
    (partial / "pom.xml").unlink()
    partial.rename(directory)
