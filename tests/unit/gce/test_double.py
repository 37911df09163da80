"""The double of the Compute API, against Google's own clients and by plain requests."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from fixtures.gce import Compute, Guest, fields, person
from fixtures.gce.filters import matcher
from tests.unit.gce.bodies import PROJECT, ZONE, Api, instance

WHERE = f"zones/{ZONE}/instances"


def test_the_table_of_fields_is_the_librarys() -> None:
    assert Path(fields.__file__).with_name("fields.json").read_text() == fields.generate()


@pytest.mark.usefixtures("api")
def test_googles_library_makes_lists_and_deletes_an_instance(compute: Compute) -> None:
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import compute_v1

    how: dict[str, Any] = {
        "credentials": AnonymousCredentials(),  # type: ignore[no-untyped-call]
        "client_options": {"api_endpoint": compute.url},
    }
    instances = compute_v1.InstancesClient(**how)
    operations = compute_v1.ZoneOperationsClient(**how)
    body = compute_v1.Instance.from_json(json.dumps(instance("node-1", labels={"run": "a"})))
    where: dict[str, Any] = {"project": PROJECT, "zone": ZONE}
    begun = instances.insert_unary(instance_resource=body, **where)
    done = operations.wait(operation=begun.name, **where)
    assert done.status == compute_v1.Operation.Status.DONE
    found = instances.get(instance="node-1", **where)
    assert (found.status, found.labels["run"]) == ("RUNNING", "a")
    assert not found.network_interfaces[0].access_configs
    listed = instances.aggregated_list(
        request={"project": PROJECT, "filter": "labels.run=a AND status=RUNNING"}
    )
    assert [each.name for _, scope in listed for each in scope.instances] == ["node-1"]
    region = compute_v1.RegionsClient(**how).get(project=PROJECT, region="europe-west4")
    assert {quota.metric: quota.usage for quota in region.quotas}["CPUS"] == 2
    instances.delete_unary(instance="node-1", **where)
    assert compute.made("instances") == compute.made("disks") == []


@pytest.mark.skipif(
    not shutil.which("gcloud"), reason="needs the Google Cloud CLI, which no package index has"
)
@pytest.mark.slow
def test_gcloud_makes_a_network_and_an_instance(compute: Compute, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("a-token")
    environment = {
        **os.environ,
        "CLOUDSDK_CONFIG": str(tmp_path),
        "CLOUDSDK_CORE_PROJECT": PROJECT,
        "CLOUDSDK_CORE_DISABLE_PROMPTS": "1",
        "CLOUDSDK_AUTH_ACCESS_TOKEN_FILE": str(tmp_path / "token"),
        # Else each command looks for a metadata server first, until that does not answer.
        "CLOUDSDK_CORE_CHECK_GCE_METADATA": "false",
        "CLOUDSDK_API_ENDPOINT_OVERRIDES_COMPUTE": f"{compute.url}/compute/v1/",
    }

    def gcloud(*words: str) -> str:
        argv = ["gcloud", "compute", *words, "--quiet"]
        done = subprocess.run(argv, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    gcloud("networks", "create", "net", "--subnet-mode=custom")
    place = ("--network=net", "--region=europe-west4", "--range=10.1.0.0/24")
    gcloud("networks", "subnets", "create", "sub", *place, "--enable-private-ip-google-access")
    rule = ("--network=net", "--direction=EGRESS", "--action=DENY", "--rules=all")
    gcloud("firewall-rules", "create", "no-way-out", *rule)
    image = ("--image-family=debian-12", "--image-project=debian-cloud")
    kind = ("--machine-type=e2-medium", "--shielded-secure-boot", "--no-address")
    gcloud("instances", "create", "vm", f"--zone={ZONE}", "--subnet=sub", *image, *kind)
    shown = json.loads(gcloud("instances", "describe", "vm", f"--zone={ZONE}", "--format=json"))
    assert shown["shieldedInstanceConfig"]["enableSecureBoot"] is True
    gcloud("instances", "delete", "vm", f"--zone={ZONE}")
    assert compute.made("instances") == []


@pytest.mark.parametrize(
    ("change", "status", "word"),
    [
        ({"nosuch": 1}, 400, "nosuch"),
        ({"scheduling": {"provisioningModel": "SPOTTY"}}, 400, "SPOTTY"),
        ({"name": "Upper"}, 400, "Must be a match"),
        ({"machineType": f"zones/{ZONE}/machineTypes/none"}, 400, "does not exist"),
        ({"networkInterfaces": [{"network": "global/networks/none"}]}, 404, "networks/none"),
        ({"labels": {"Upper": "x"}}, 400, "Label key"),
        ({"scheduling": {"maxRunDuration": {"seconds": 5}}}, 400, "between 30 seconds"),
        ({"machineType": f"zones/{ZONE}/machineTypes/g2-standard-4"}, 400, "live migration"),
        ({"scheduling": {"instanceTerminationAction": "DELETE"}}, 400, "termination action"),
        ({"machineType": f"zones/{ZONE}/machineTypes/t2a-standard-4"}, 400, "architecture"),
        ({"metadata": {"items": [{"key": "a", "value": "x" * 270_000}]}}, 400, "too large"),
        ({"disks": []}, 400, "boot disk"),
    ],
)
def test_bodies_that_the_service_refuses(
    api: Api, compute: Compute, change: dict[str, Any], status: int, word: str
) -> None:
    found, answer = api.insert(instance("vm") | change)
    assert (found, compute.made("instances")) == (status, [])
    assert word in answer["error"]["message"]


def test_the_same_request_id_gives_the_same_operation(api: Api, compute: Compute) -> None:
    _, first = api.insert(instance("vm"), requestId="r1")
    _, again = api.insert(instance("vm"), requestId="r1")
    assert first["name"] == again["name"]
    assert api.insert(instance("vm"), requestId="r2")[0] == 409
    assert len(compute.made("instances")) == 1


def test_an_answer_that_is_lost_has_been_done(api: Api, compute: Compute) -> None:
    compute.lose("POST", r"/instances$")
    assert api.insert(instance("vm"), requestId="r1")[0] == 503
    assert len(compute.made("instances")) == 1
    assert api.insert(instance("vm"), requestId="r1")[0] == 200


def _ended(api: Api, begun: tuple[int, Any]) -> Any:
    status, operation = begun
    assert status == 200, operation
    return api.ask("POST", f"zones/{ZONE}/operations/{operation['name']}/wait")[1]


def test_stock_and_quota_fail_the_operation(api: Api, compute: Compute) -> None:
    compute.stockout(ZONE, "e2-medium")
    done = _ended(api, api.insert(instance("vm")))
    assert done["error"]["errors"][0]["code"] == "ZONE_RESOURCE_POOL_EXHAUSTED"
    assert done["httpErrorStatusCode"] == 503
    compute.restock()
    compute.set_quota("CPUS", 3)
    assert "error" not in _ended(api, api.insert(instance("vm-1")))
    done = _ended(api, api.insert(instance("vm-2")))
    assert done["error"]["errors"][0]["code"] == "QUOTA_EXCEEDED"
    assert [path.rpartition("/")[2] for path in compute.made("instances")] == ["vm-1"]


def test_an_operation_takes_its_time_and_may_never_end(api: Api, compute: Compute) -> None:
    compute.seconds["insert"] = 1000
    _, begun = api.insert(instance("vm"))
    assert (begun["status"], compute.named("vm")["status"]) == ("RUNNING", "PROVISIONING")
    compute.pass_time(1000)
    assert _ended(api, (200, begun))["status"] == "DONE"
    assert compute.named("vm")["status"] == "RUNNING"
    compute.hang("delete")
    compute.scale = 1000  # the API itself ends the wait after two minutes
    deleting = _ended(api, api.ask("DELETE", f"{WHERE}/vm"))
    assert deleting["status"] == "RUNNING"
    assert compute.named("vm")["status"] == "STOPPING"


def test_everything_is_down_for_a_while(api: Api, compute: Compute) -> None:
    compute.down(1000)
    assert api.ask("GET", "zones")[0] == 503
    compute.pass_time(1000)
    assert api.ask("GET", "zones")[0] == 200


def test_an_instance_is_deleted_when_its_time_is_up(api: Api, compute: Compute) -> None:
    limited = {"maxRunDuration": {"seconds": 1000}, "instanceTerminationAction": "DELETE"}
    api.insert(instance("vm", scheduling=limited))
    assert len(compute.made("instances")) == 1
    compute.pass_time(1000)
    assert compute.made("instances") == compute.made("disks") == []


def test_the_console_and_guest_attributes_come_with_the_boot(api: Api, compute: Compute) -> None:
    keys = {"hostkeys": {"ssh-ed25519": "AAAA"}}
    compute.guest = Guest(serial="begins\n", late="is up\n", boots=1000, attributes=keys)
    items = [{"key": "enable-guest-attributes", "value": "TRUE"}]
    api.insert(instance("vm", metadata={"items": items}))
    api.insert(instance("closed"))
    assert api.ask("GET", f"{WHERE}/vm/serialPort")[1]["contents"] == "begins\n"
    assert api.ask("GET", f"{WHERE}/vm/getGuestAttributes", queryPath="hostkeys/")[0] == 404
    compute.pass_time(1000)
    rest = api.ask("GET", f"{WHERE}/vm/serialPort", start="7")[1]
    assert (rest["contents"], rest["next"]) == ("is up\n", "13")
    _, found = api.ask("GET", f"{WHERE}/vm/getGuestAttributes", queryPath="hostkeys/")
    assert found["queryValue"]["items"][0]["value"] == "AAAA"
    assert api.ask("GET", f"{WHERE}/closed/getGuestAttributes", queryPath="hostkeys/")[0] == 404


def test_what_is_in_use_is_not_deleted(api: Api, compute: Compute) -> None:
    api.insert(instance("vm"))
    used = "resourceInUseByAnotherResource"
    assert api.reason("DELETE", "global/networks/default") == (400, used)
    api.ask("DELETE", f"{WHERE}/vm")
    assert api.ask("DELETE", "global/networks/default")[0] == 200
    assert compute.made() == []


def test_changes_need_the_fingerprint_of_what_is_there(api: Api, compute: Compute) -> None:
    api.insert(instance("vm", labels={"run": "a"}))
    labels = {"labels": {"run": "b"}}
    assert api.reason("POST", f"{WHERE}/vm/setLabels", labels) == (412, "conditionNotMet")
    mark = {"labelFingerprint": compute.named("vm")["labelFingerprint"]}
    assert api.ask("POST", f"{WHERE}/vm/setLabels", {**labels, **mark})[0] == 200
    assert compute.named("vm")["labels"] == {"run": "b"}


def test_permissions_and_services(api: Api, compute: Compute) -> None:
    compute.denied.add("compute.instances.create")
    assert api.insert(instance("vm"))[0] == 403
    compute.disabled.add("compute.googleapis.com")
    assert api.reason("GET", "zones") == (403, "accessNotConfigured")


def test_credentials_expire(compute: Compute) -> None:
    from google.auth.exceptions import RefreshError
    from google.cloud import compute_v1

    options = {"api_endpoint": compute.url}
    zones = compute_v1.ZonesClient(credentials=person(compute), client_options=options)
    assert len(list(zones.list(project=PROJECT))) == 4
    compute.expire()
    with pytest.raises(RefreshError, match="invalid_grant"):
        zones.list(project=PROJECT)
    assert compute.said("POST", "/token")[0]["status"] == 400
    compute.renew()
    assert len(list(zones.list(project=PROJECT))) == 4


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("", True),
        ("name=vm", True),
        ("labels.run=a AND name=vm", True),
        ("(labels.run = a) (name eq other)", False),
        ("labels.run:*", True),
        ("labels.none:*", False),
        ('name != "vm"', False),
        ("deletionProtection=false", True),
    ],
)
def test_filters(text: str, fits: bool) -> None:
    resource = {"name": "vm", "labels": {"run": "a"}, "deletionProtection": False}
    assert matcher(text)(resource) is fits


def test_a_filter_that_is_not_understood_is_an_error(api: Api) -> None:
    assert api.reason("GET", WHERE, filter="name=a OR name=b") == (400, "invalid")


def test_pages(api: Api) -> None:
    for number in range(3):
        api.insert(instance(f"vm-{number}"))
    _, first = api.ask("GET", WHERE, maxResults="2")
    _, rest = api.ask("GET", WHERE, maxResults="2", pageToken=first["nextPageToken"])
    assert [each["name"] for each in first["items"] + rest["items"]] == ["vm-0", "vm-1", "vm-2"]
    assert "nextPageToken" not in rest


def test_guests_have_their_own_script(api: Api, compute: Compute) -> None:
    compute.guests["vm"] = Guest(serial="mine\n", boots=0)
    api.insert(instance("vm"))
    assert api.ask("GET", f"{WHERE}/vm/serialPort")[1]["contents"].startswith("mine")
