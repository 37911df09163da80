"""Set-up of a user's own in a profile: read, keyed by its text, refused where it cannot run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.catalog import load_catalog
from harness.cells import Cell
from harness.errors import UsageError
from harness.foreign import Foreign
from harness.refusals import known_refusal

SCRIPT = "#!/bin/sh\necho hello\n"


def own(folder: Path, name: str = "mine") -> Foreign:
    """What the profile ``name`` of the folder names."""
    found = load_catalog(folder).profiles[name].foreign
    assert found is not None
    return found


def write(folder: Path, table: str, **files: str) -> Path:
    """A profiles.toml with one profile, and files beside it: ``set_up_sh`` is set_up.sh."""
    for name, text in files.items():
        path = folder / "".join(name.rsplit("_", 1)[0]).replace("__", "/")
        path = path.with_suffix("." + name.rsplit("_", 1)[1])
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, newline="")
    (folder / "profiles.toml").write_text(f"[mine]\ntitle = 'Mine'\n{table}\n")
    return folder


def test_a_users_profiles_and_images_are_beside_the_matrix(tmp_path: Path) -> None:
    write(tmp_path, "script = 'set_up.sh'\ninstallers = ['seal']", set_up_sh=SCRIPT)
    (tmp_path / "images.toml").write_text(
        "[our-image]\ntitle = 'Ours'\nfamily = 'debian'\nversion = '12'\nsuite = 'bookworm'\n"
        "kernel = 'linux-image-cloud-amd64'\npackages = ['cloud-init']\n"
    )
    catalog = load_catalog(tmp_path)
    assert {"full", "mine"} <= set(catalog.profiles)
    assert catalog.images["our-image"].packages == ("cloud-init",)
    mine = catalog.profiles["mine"]
    assert (mine.installers, mine.parts) == (("seal",), ("seal",))
    assert mine.foreign is not None
    assert mine.foreign.files() == {"set_up.sh": SCRIPT.encode()}
    assert mine.foreign.hosts is None


def test_it_says_what_it_brings(tmp_path: Path) -> None:
    table = (
        "script = 'a.sh'\ndriver = true\nhosts = ['m.example']\nminutes = 5\nmetadata = {a = 'b'}"
    )
    write(tmp_path, table, a_sh=SCRIPT)
    assert load_catalog(tmp_path).profiles["mine"].parts == ("driver",)
    found = own(tmp_path)
    assert (found.hosts, found.minutes, found.metadata) == (("m.example",), 5, {"a": "b"})


def test_its_text_is_its_identity(tmp_path: Path) -> None:
    first = own(write(tmp_path, "script = 'a.sh'", a_sh=SCRIPT))
    assert own(tmp_path).sha256 == first.sha256
    (tmp_path / "a.sh").write_text(SCRIPT + "# more\n")
    assert own(tmp_path).sha256 != first.sha256
    with pytest.raises(UsageError, match=r"a\.sh: has changed since"):
        first.files()


def test_a_playbook_is_all_that_lies_beside_it(tmp_path: Path) -> None:
    folder = tmp_path / "ansible"
    (folder / "roles/gpu/tasks").mkdir(parents=True)
    (folder / ".git").mkdir()
    (folder / ".git/config").write_text("[core]\n")
    task = folder / "roles/gpu/tasks/main.yml"
    task.write_text("- command: 'true'\n")
    write(tmp_path, "playbook = 'ansible/site.yml'", ansible__site_yml="- hosts: localhost\n")
    first = own(tmp_path)
    assert set(first.files()) == {"site.yml", "roles/gpu/tasks/main.yml"}
    task.write_text("- command: 'false'\n")
    assert own(tmp_path).sha256 != first.sha256


BAD = [
    ("script = 'none.sh'", 3, "none.sh cannot be read: No such file"),
    ("script = 'a.sh'\nplaybook = 'b.yml'", 4, "there is script already"),
    ("script = 3", 3, "must be the path of a file"),
    ("script = 'plain.sh'", 3, "plain.sh:1: is no script: there is no #! line"),
    ("script = 'dos.sh'", 3, "dos.sh:1: its lines end with CR LF"),
    ("cloud_init = 'plain.sh'", 3, "is no user-data, and cloud-init would ignore it"),
    ("playbook = 'empty.yml'", 3, "empty.yml: is empty"),
    ("scirpt = 'a.sh'", 3, "did you mean 'script'?"),
    ("script = 'a.sh'\ninstallers = ['sael']", 4, "did you mean 'seal'?"),
    ("script = 'a.sh'\ninstallers = 'seal'", 4, "must be a list of names"),
    ("script = 'a.sh'\ndriver = true\ninstallers = ['driver']", 4, "only one of them can"),
    ("script = 'a.sh'\ndriver = 'yes'", 4, "must be true or false"),
    ("script = 'a.sh'\nminutes = 0", 4, "a whole number from 1 to 600"),
    ("script = 'a.sh'\nminutes = true", 4, "a whole number from 1 to 600"),
    ("script = 'a.sh'\nhosts = 'm.example'", 4, "must be a list of names"),
    ("script = 'a.sh'\nmetadata = {a = 1}", 4, "must be a table of texts"),
    ("script = 'a.sh'\nmetadata = {http-proxy = 'x:1'}", 4, "is the environment's"),
    ("script = 'a.sh'\nmetadata = {airlock-signer = '/x'}", 4, "is the environment's"),
    ("installers = ['seal']\nminutes = 3", 4, "is for profiles with script"),
    ("tools = true", 1, "installs nothing"),
]


@pytest.mark.parametrize(("table", "line", "words"), BAD, ids=[words for _, _, words in BAD])
def test_bad_input_is_named_with_file_and_line(
    tmp_path: Path, table: str, line: int, words: str
) -> None:
    files = {"a_sh": SCRIPT, "plain_sh": "echo hello\n", "dos_sh": "#!/bin/sh\r\necho\r\n"}
    write(tmp_path, table, **files, empty_yml="\n")
    with pytest.raises(UsageError) as error:
        load_catalog(tmp_path)
    assert f"profiles.toml:{line}: " in error.value.message
    assert words in str(error.value)


def test_a_name_that_ships_is_taken(tmp_path: Path) -> None:
    write(tmp_path, "script = 'a.sh'", a_sh=SCRIPT)
    text = (tmp_path / "profiles.toml").read_text().replace("[mine]", "[full]")
    (tmp_path / "profiles.toml").write_text(text)
    with pytest.raises(UsageError, match=r"profiles\.toml:1: 'full' ships already"):
        load_catalog(tmp_path)


def test_a_folder_that_is_too_large_for_a_playbook(tmp_path: Path) -> None:
    for number in range(2001):
        (tmp_path / f"{number}.txt").touch()
    write(tmp_path, "playbook = 'site.yml'", site_yml="- hosts: localhost\n")
    with pytest.raises(UsageError, match="more than 2000 files"):
        load_catalog(tmp_path)


@pytest.mark.parametrize(
    ("key", "text", "package"),
    [
        ("cloud_init", "#cloud-config\n", "cloud-init"),
        ("playbook", "- hosts: localhost\n", "ansible-core"),
    ],
)
def test_what_the_image_cannot_run_is_refused_with_a_way_out(
    tmp_path: Path, key: str, text: str, package: str
) -> None:
    catalog = load_catalog(write(tmp_path, f"{key} = 'a.yml'", a_yml=text))
    cell = Cell(
        catalog.images["debian-12"], catalog.scenarios["proxy"], catalog.profiles["mine"], "qemu"
    )
    refusal = known_refusal(cell)
    assert refusal is not None
    assert f"debian-12 has no {package}" in refusal.reason
    assert f'packages = ["{package}"]' in refusal.remedy
    assert known_refusal(replace(cell, image=catalog.images["debian-12-cloud"])) is None


def test_a_driver_of_ones_own_needs_a_kernel_that_takes_it(tmp_path: Path) -> None:
    catalog = load_catalog(write(tmp_path, "script = 'a.sh'\ndriver = true", a_sh=SCRIPT))
    scenario = catalog.scenarios["proxy-intercept"]
    cell = Cell(catalog.images["debian-11"], scenario, catalog.profiles["mine"], "qemu")
    refusal = known_refusal(cell)
    assert refusal is not None
    assert refusal.code == "secure-boot.db-not-trusted"
