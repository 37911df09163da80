"""Making and removing the closed network: one request after the other, to be resumed at any."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from harness.cloud.compare import Action, Step, plan
from harness.cloud.journal import Journal
from harness.cloud.network import Resource, Site
from harness.errors import InfraError, UsageError
from harness.providers.gce_api import CloudError

Say = Callable[[str], None]
_CHANGES = (Action.MAKE, Action.REPLACE)


class Api(Protocol):
    """What is asked of Google. All return when it is done; all raise AirlockError."""

    def get(self, site: Site, resource: Resource) -> Mapping[str, Any] | None:
        """The thing as JSON; None if there is none."""

    def put(self, site: Site, resource: Resource, request: str) -> None:
        """Make it. The same ``request`` (a UUID) twice is one operation."""

    def drop(self, site: Site, resource: Resource) -> None:
        """Remove it; nothing happens if there is none."""

    def machines(self, site: Site) -> Sequence[Mapping[str, Any]]:
        """Machines with a card in the network."""

    def firewalls(self, site: Site) -> Sequence[Mapping[str, Any]]:
        """Firewall rules of the network."""


def planned(api: Api, site: Site, wanted: Sequence[Resource], marker: str) -> list[Step]:
    """What would have to be done. Only looks."""
    found: dict[str, Mapping[str, Any] | None] = {}

    def there(resource: Resource) -> Mapping[str, Any] | None:
        # What is in a zone that is not there needs no question.
        if resource.within and found.get(f"managedZones/{resource.within}") is None:
            return None
        found[resource.title] = api.get(site, resource)
        return found[resource.title]

    def ours(resource: Resource, thing: Mapping[str, Any]) -> bool:
        if resource.within:
            thing = found[f"managedZones/{resource.within}"] or {}
        return is_ours(thing, marker)

    steps = plan(wanted, there, ours)
    network = found[wanted[0].title]
    if network is not None and not is_ours(network, marker):
        # Rules in somebody else's network would change it as much as a change of its own fields.
        steps = [
            step
            if step.action not in _CHANGES
            else Step(step.resource, Action.FOREIGN, ("the network is somebody else's",))
            for step in steps
        ]
    return steps


def is_ours(thing: Mapping[str, Any], marker: str) -> bool:
    """Whether the journal's own run made it: its description says so."""
    return thing.get("description") == marker


def changes(steps: Sequence[Step]) -> list[Step]:
    """The steps that would change something."""
    return [step for step in steps if step.action in _CHANGES]


def refuse(site: Site, steps: Sequence[Step]) -> None:
    """UsageError where a step must not be done: then none is."""
    foreign = [step for step in steps if step.action is Action.FOREIGN]
    if foreign:
        raise UsageError(
            f"{_titles(foreign)}: there is something of that name that was not made here, and it "
            f"is not as it should be ({foreign[0].why[0]})",
            hint="give another --name, or --verify to see what is otherwise",
        )
    stuck = [step for step in steps if step.action is Action.STUCK]
    if stuck:
        raise UsageError(
            f"{_titles(stuck)}: is not as it was made ({stuck[0].why[0]}) and cannot be made anew "
            "with others in it",
            hint=f"airlock gce down --project {site.project} --name {site.name}, then up",
        )


def make(api: Api, site: Site, steps: Sequence[Step], journal: Journal, say: Say) -> None:
    """Do the steps of a plan, in order. Whatever ends it, the same call goes on."""
    refuse(site, steps)
    for step in changes(steps):
        resource = step.resource
        if step.action is Action.REPLACE:
            say(f"removing {resource.title}: {step.why[0]}")
            api.drop(site, resource)
            journal.gone(resource)
        say(f"making {resource.title}")
        try:
            api.put(site, resource, journal.making(resource))
        except CloudError:
            journal.refused(resource)
            raise
        there = api.get(site, resource)
        if there is None:
            # The request was known to have ended, and what it made has gone since.
            journal.gone(resource)
            raise InfraError(f"{resource.title} is gone again", hint="repeat the command")
        journal.made(resource, str(there.get("id") or ""))


def removable(api: Api, site: Site, journal: Journal) -> list[Resource]:
    """What ``down`` is to remove, in order. UsageError where something of others is in the way.

    Nothing is in the list that is not ours any more: a thing of the same name that another made.
    """
    mine = []
    zones: dict[str, bool] = {}
    for thing in reversed(journal.things):
        there = api.get(site, thing)
        if thing.within:
            if thing.within not in zones:
                zone = api.get(site, Resource("managedZones", thing.within, {}))
                zones[thing.within] = is_ours(zone or {}, journal.marker)
            if there is not None and zones[thing.within]:
                mine.append(thing)
        elif there is not None and is_ours(there, journal.marker):
            mine.append(thing)
    titles = {thing.title for thing in mine}
    if f"networks/{site.name}" in titles:
        _unused(api, site, titles)
    return mine


def _unused(api: Api, site: Site, mine: set[str]) -> None:
    """The network cannot go while somebody uses it: said before anything is removed."""
    machines = [
        str(one["name"]) for one in api.machines(site) if f"instances/{one['name']}" not in mine
    ]
    if machines:
        raise UsageError(
            f"{site.name}: {len(machines)} machines are in the network: {', '.join(machines[:5])}",
            hint="end them first; `airlock reap` removes what runs left behind",
        )
    rules = [
        str(one["name"]) for one in api.firewalls(site) if f"firewalls/{one['name']}" not in mine
    ]
    if rules:
        raise UsageError(
            f"{site.name}: firewall rules that were not made here: {', '.join(rules[:5])}",
            hint="remove them first",
        )


def remove(api: Api, site: Site, things: Sequence[Resource], journal: Journal, say: Say) -> None:
    """Remove what ``removable`` found, and forget the network."""
    for thing in things:
        say(f"removing {thing.title}")
        api.drop(site, thing)
        journal.gone(thing)
    journal.close()


def _titles(steps: Sequence[Step]) -> str:
    return ", ".join(step.resource.title for step in steps[:4])
