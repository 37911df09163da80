"""Who may do what: each method that is called here, and the permissions that it asks for.

The permissions are those of the API's reference ("IAM permissions" of each method). A test runs
everything that calls the API and holds this table, and the documentation's, against the calls made.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

_LINKS = "compute.networks.updatePolicy"

#: Method -> permissions, all on the project.
METHODS: dict[str, tuple[str, ...]] = {
    "networks.get": ("compute.networks.get",),
    "networks.insert": ("compute.networks.create",),
    "networks.delete": ("compute.networks.delete",),
    "networks.getEffectiveFirewalls": ("compute.networks.getEffectiveFirewalls",),
    "subnetworks.get": ("compute.subnetworks.get",),
    "subnetworks.insert": ("compute.subnetworks.create", _LINKS),
    "subnetworks.delete": ("compute.subnetworks.delete", _LINKS),
    "subnetworks.list": ("compute.subnetworks.list",),
    "firewalls.get": ("compute.firewalls.get",),
    "firewalls.insert": ("compute.firewalls.create", _LINKS),
    "firewalls.delete": ("compute.firewalls.delete", _LINKS),
    "firewalls.list": ("compute.firewalls.list",),
    "routes.list": ("compute.routes.list",),
    "routers.list": ("compute.routers.list",),
    "instances.get": ("compute.instances.get",),
    "instances.insert": (
        "compute.instances.create",
        "compute.instances.setLabels",
        "compute.instances.setMetadata",
        "compute.instances.setTags",
        "compute.disks.create",
        "compute.images.useReadOnly",
        "compute.subnetworks.use",
        "compute.subnetworks.useExternalIp",
    ),
    "instances.delete": ("compute.instances.delete",),
    "instances.aggregatedList": ("compute.instances.list",),
    "instances.getGuestAttributes": ("compute.instances.getGuestAttributes",),
    "projects.get": ("compute.projects.get",),
    "regions.get": ("compute.regions.get",),
    "machineTypes.get": ("compute.machineTypes.get",),
    "acceleratorTypes.get": ("compute.acceleratorTypes.get",),
    "images.get": ("compute.images.get",),
    "images.getFromFamily": ("compute.images.getFromFamily",),
    "images.list": ("compute.images.list",),
    "images.insert": (
        "compute.images.create",
        "compute.images.setLabels",
        "compute.images.useReadOnly",
    ),
    "globalOperations.wait": ("compute.globalOperations.get",),
    "regionOperations.wait": ("compute.regionOperations.get",),
    "zoneOperations.wait": ("compute.zoneOperations.get",),
    "dns.managedZones.get": ("dns.managedZones.get",),
    "dns.managedZones.create": ("dns.managedZones.create", "dns.networks.bindPrivateDNSZone"),
    "dns.managedZones.delete": ("dns.managedZones.delete",),
    "dns.resourceRecordSets.get": ("dns.resourceRecordSets.get",),
    "dns.resourceRecordSets.create": ("dns.resourceRecordSets.create", "dns.changes.create"),
    "dns.resourceRecordSets.delete": ("dns.resourceRecordSets.delete", "dns.changes.create"),
    "serviceusage.services.get": ("serviceusage.services.get",),
    "cloudresourcemanager.projects.testIamPermissions": (),
    # No method of an API: what opens the tunnel of ssh.
    "iap.tunnel": ("iap.tunnelInstances.accessViaIAP",),
}

#: The same for what nodes ask beside it (``harness.providers.gce``).
NODES: dict[str, tuple[str, ...]] = {
    "instances.insert": ("compute.disks.setLabels",),
    # "Manage access to custom images": an image of a disk takes the use of the disk.
    "images.insert": ("compute.disks.use",),
    "images.delete": ("compute.images.delete",),
    "images.setLabels": ("compute.images.setLabels",),
    "instances.stop": ("compute.instances.stop",),
    "instances.getSerialPortOutput": ("compute.instances.getSerialPortOutput",),
}


def needed(*tables: Mapping[str, Iterable[str]]) -> list[str]:
    """The permissions of these tables, each once, in order of the alphabet."""
    return sorted({one for table in tables for needs in table.values() for one in needs})
