"""What came with the image: of the machine that it was made on, and of the people who made it."""

from __future__ import annotations

from harness.checks import check, fact, fail, image_built
from harness.node import Node

SINCE = "2026-11-22"


def inherited(node: Node, kind: str) -> list[str]:
    """Files of one kind that are not younger than the image."""
    built = node.expect["image_built"]
    return [one["path"] for one in fact(node, "hygiene.dated")[kind] if one["mtime"] <= built]


@check(
    id="hygiene.authorized-keys",
    severity="blocker",
    title="The image lets nobody in by SSH",
    remedy="Remove ~/.ssh/authorized_keys before the image is taken: the cloud's agent, or "
    "cloud-init, writes the keys of whoever starts the node.",
    requires=image_built,
    source="authorized_keys of root and of every home, not younger than the image",
    since=SINCE,
)
def test_authorized_keys(node: Node) -> None:
    """The key of whoever built the image opens every node that is made of it."""
    built = node.expect["image_built"]
    old = [one["path"] for one in fact(node, "hygiene.authorized_keys") if one["mtime"] <= built]
    if old:
        fail(f"{len(old)} files of the image let somebody in: {old[0]}", old)


@check(
    id="hygiene.passwords",
    severity="blocker",
    title="No account of the image has a password, and none an empty one",
    remedy="Run 'passwd -l ACCOUNT' in the image: a password of the builder's is everybody's "
    "password, and an empty one needs none.",
    requires=image_built,
    source="shadow(5): the second field of each account",
    since=SINCE,
)
def test_passwords(node: Node) -> None:
    """Set 'for the console, for a moment'."""
    found = [f"{one['account']}: {one['kind']}" for one in fact(node, "hygiene.passwords")]
    if found:
        fail(f"{len(found)} accounts have a password: {found[0]}", found)


@check(
    id="hygiene.credentials",
    severity="blocker",
    title="The node keeps nobody's login to a cloud, a registry or a forge",
    remedy="Remove the file that the evidence names, build the image again and revoke what it "
    "holds ('gcloud auth revoke', 'docker logout', a new token): who had the image has it.",
    requires=image_built,
    source="where gcloud, aws, docker, git, kubectl, NGC, Hugging Face and others keep logins",
    since=SINCE,
)
def test_credentials(node: Node) -> None:
    """Somebody fetched a model while the image was built."""
    found = fact(node, "hygiene.credentials")
    if found:
        fail(f"{len(found)} files hold a login: {found[0]}", found)


@check(
    id="hygiene.arguments",
    severity="blocker",
    title="No process has a password in its arguments",
    remedy="Give the program its proxy by a file or by its environment ('systemctl cat UNIT' shows "
    "who starts it): everybody on the node can read arguments, and so do audit logs.",
    source="/proc/PID/cmdline: a URL with user and password",
    since=SINCE,
)
def test_arguments(node: Node) -> None:
    """curl --proxy http://user:password@... in a unit's ExecStart."""
    found = [f"process {p['pid']}: {p['text']}" for p in fact(node, "processes.arguments")]
    if found:
        fail(f"{len(found)} processes show a password: {found[0]}", found)


@check(
    id="hygiene.traces",
    severity="major",
    title="Nobody's shell history is in the image",
    remedy="Run the seal installer last, or remove the file: what somebody typed, passwords and "
    "all, is in it.",
    requires=image_built,
    source="histories of shells, interpreters, editors and database clients in every home",
    since=SINCE,
)
def test_traces(node: Node) -> None:
    """A build needs no interactive shell; a repair by hand does."""
    found = fact(node, "hygiene.traces")
    if found:
        fail(f"{len(found)} files tell what somebody did: {found[0]}", found)


@check(
    id="hygiene.cloud-init",
    severity="blocker",
    title="cloud-init has no instance of the builder's",
    remedy="Run 'cloud-init clean --logs --seed' before the image is taken: what is marked as done "
    "is not done again, and what is cached is another instance's.",
    requires=image_built,
    source="/var/lib/cloud/instances, /var/lib/cloud/sem, /var/lib/cloud/data/instance-id",
    since=SINCE,
)
def test_cloud_init(node: Node) -> None:
    """Modules that run once an instance, or once for all, believe that they have run."""
    old = inherited(node, "cloud-init")
    if old:
        fail(f"cloud-init keeps {len(old)} things of the image's: {old[0]}", old)


@check(
    id="hygiene.random-seed",
    severity="blocker",
    title="The random seed was made on this node",
    remedy="Remove /var/lib/systemd/random-seed from the image: the seal installer does.",
    requires=image_built,
    source="systemd-random-seed(8); Building Images Safely: every clone would begin with one seed",
    since=SINCE,
)
def test_random_seed(node: Node) -> None:
    """Where there is none yet, systemd makes one."""
    old = inherited(node, "random-seed")
    if old:
        fail(f"{old[0]} is the image's: every clone has it", old)


@check(
    id="hygiene.leases",
    severity="major",
    title="No DHCP lease of the builder's is kept",
    remedy="Remove the leases from the image (/var/lib/dhcp, /var/lib/NetworkManager): the client "
    "asks for the builder's address first.",
    requires=image_built,
    source="dhclient.leases(5): INIT-REBOOT with the address of a lease that is kept",
    since=SINCE,
)
def test_leases(node: Node) -> None:
    """Two clones that start at once ask for one address."""
    old = inherited(node, "leases")
    if old:
        fail(f"{len(old)} leases are the image's: {old[0]}", old)


@check(
    id="hygiene.identities",
    severity="major",
    title="What else tells machines apart was made on this node",
    remedy="Remove the file that the evidence names from the image; its program makes a new one at "
    "the first start ('nvme gen-hostnqn', 'dbus-uuidgen --ensure').",
    requires=image_built,
    source="D-Bus's machine id where it is no link, NVMe's host id, iSCSI's initiator, minion ids",
    since=SINCE,
)
def test_identities(node: Node) -> None:
    """Storage takes two clones with one host id for one machine, and mixes up their writes."""
    old = inherited(node, "identities")
    if old:
        fail(f"{len(old)} files are the image's: every clone is {old[0]}", old)


@check(
    id="hygiene.network-names",
    severity="blocker",
    title="No card is configured by the number of the builder's",
    remedy="Remove the rule, or match by what clones share (Name=, Driver=, match: name): "
    "'grep -ri macaddr /etc/netplan /etc/systemd/network /etc/udev/rules.d' finds it.",
    requires=image_built,
    source="70-persistent-net.rules, netplan's match: macaddress, systemd.link(5): MACAddress=",
    since=SINCE,
)
def test_network_names(node: Node) -> None:
    """Cards that the node has may be named; another machine's leaves it without a network."""
    own = {str(card["mac"]).lower() for card in fact(node, "network.interfaces")}
    strange = [
        f"{one['path']}: {one['card']}"
        for one in fact(node, "hygiene.network_names")
        if one["card"] not in own
    ]
    if strange:
        fail(f"{len(strange)} files are about another machine's card: {strange[0]}", strange)


@check(
    id="hygiene.stale-locks",
    severity="major",
    title="No program that was killed has left its lock",
    remedy="Remove the file that the evidence names once nobody runs that program ('fuser FILE'): "
    "useradd says 'cannot lock /etc/passwd; try again later', and never will.",
    source="passwd(5)'s, git's, conda's and DKMS's lock files, which lock by being there",
    since=SINCE,
)
def test_stale_locks(node: Node) -> None:
    """A build that ran out of time; locks that the kernel keeps end with their process."""
    found = fact(node, "hygiene.stale_locks")
    if found:
        fail(f"{len(found)} locks were left behind: {found[0]}", found)


@check(
    id="hygiene.apt-lists",
    severity="major",
    title="apt knows no packages from the day of the build",
    remedy="Run the seal installer last, or 'rm -rf /var/lib/apt/lists/*': an install without "
    "'apt-get update' asks for versions that the mirror has long dropped (404).",
    requires=image_built,
    source="/var/lib/apt/lists, not younger than the image",
    since=SINCE,
)
def test_apt_lists(node: Node) -> None:
    """They are large too, and in the image for every clone."""
    old = inherited(node, "apt-lists")
    if old:
        fail(f"{len(old)} lists of packages are the image's: {old[0]}", old)


@check(
    id="hygiene.logs",
    severity="major",
    title="The node's logs begin with the node",
    remedy="Run the seal installer last: logs of a build name its machine, its network and its "
    "users, and whoever reads them on a node takes them for the node's.",
    requires=image_built,
    source="files in /var/log that hold something and are not younger than the image",
    since=SINCE,
)
def test_logs(node: Node) -> None:
    """A shell trace of a set-up script, world-readable, is where proxy passwords are found."""
    old = inherited(node, "logs")
    if old:
        fail(f"{len(old)} logs are of the image's build: {old[0]}", old)


@check(
    id="hygiene.writable",
    severity="blocker",
    title="Nobody but its owner can write the node's configuration and programs",
    remedy="Run 'chmod o-w' on the path that the evidence names, and find who did 'chmod -R 777' "
    "or built with umask 0.",
    source="files and folders of /etc, /opt, /usr/local, /root and of ours; sticky ones are meant",
    since=SINCE,
)
def test_writable(node: Node) -> None:
    """A profile that everybody can write runs as whoever logs in next."""
    found = fact(node, "hygiene.writable")
    if found:
        fail(f"{len(found)} paths can be written by everybody: {found[0]}", found)
