"""What nodes cost, and the limit that a run does not go beyond.

Prices are what the user says, with their source and date: nobody else's are trusted. A node is paid
for by its longest life before it is made, because only that is sure: Google deletes it then,
whatever becomes of us. What it did not live is given back when it is gone.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from harness.errors import InfraError
from harness.providers.gce_config import Config, Price

#: Google bills a minute at least; "Per-second billing" in the documentation of Compute Engine.
SHORTEST_BILL = 60.0


class OverLimit(InfraError):
    """The node would cost more than the run may, or nobody knows what it costs."""


@dataclass
class Reserved:
    """What is set aside for one node. ``began``: when Google began to count (monotonic)."""

    name: str
    price: Price | None
    amount: float
    began: float | None = None


class Budget:
    """The money of one run. Thread-safe."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._spent = 0.0
        self._reserved: dict[str, Reserved] = {}

    @property
    def committed(self) -> float:
        """Spent and set aside, in the limit's currency."""
        with self._lock:
            return self._spent + sum(each.amount for each in self._reserved.values())

    def describe(self, zone: str, config: Config | None = None) -> str:
        """What a node there costs, for people, before it is made.

        ``config``, here and below: of a machine that is no node, with its own type and time.
        """
        config = config or self._config
        price = config.price(zone)
        if price is None:
            return f"price in {zone} unknown"
        longest = price.per_hour * config.seconds / 3600
        return (
            f"{price.per_hour:g} {price.currency} an hour in {zone}, at most {longest:.2f} "
            f"({price.source}, {price.date})"
        )

    def trouble(self, zone: str, *configs: Config) -> str:
        """Why no node, or not all of these machines, can be paid for there; empty if they can."""
        limit, whole = self._config.limit, 0.0
        if limit is None:
            return ""
        for config in configs or (self._config,):
            price = config.price(zone)
            if price is None:
                what = f"{config.provisioning} {config.machine_type}"
                return f"nobody said what {what} costs in {zone}, and there is a limit"
            if price.currency != limit.currency:
                return f"the price in {zone} is in {price.currency}, the limit in {limit.currency}"
            whole += price.per_hour * config.seconds / 3600
        if whole > limit.spend:
            who = "a node" if len(configs) < 2 else "a node and the building of its image"
            return (
                f"{who} in {zone} may cost {whole:.2f} {limit.currency}, and the limit is "
                f"{limit.spend:.2f}"
            )
        return ""

    def reserve(self, name: str, zone: str, config: Config | None = None) -> Reserved:
        """Set aside what the node may cost; OverLimit, and then it must not be made."""
        config = config or self._config
        hint = "raise [limit] spend, lower minutes, or add [[prices]]"
        if trouble := self.trouble(zone, config):
            raise OverLimit(f"{name}: {trouble}", hint=f"{self._config.path}: {hint}")
        price, limit = config.price(zone), self._config.limit
        amount = price.per_hour * config.seconds / 3600 if price else 0.0
        with self._lock:
            before = self._spent + sum(each.amount for each in self._reserved.values())
            if limit is not None and before + amount > limit.spend + 1e-9:
                raise OverLimit(
                    f"{name}: it may cost {amount:.2f} {limit.currency}; {before:.2f} of the "
                    f"limit of {limit.spend:.2f} are spent or set aside",
                    hint=f"{self._config.path}: {hint}",
                )
            reserved = self._reserved[name] = Reserved(name, price, amount)
        return reserved

    def started(self, reserved: Reserved) -> None:
        """Google counts from now on."""
        reserved.began = time.monotonic()

    def settle(self, reserved: Reserved) -> float:
        """The node is gone: keep what it cost, give back the rest. The cost."""
        with self._lock:
            if self._reserved.pop(reserved.name, None) is None or reserved.began is None:
                return 0.0
            lived = max(SHORTEST_BILL, time.monotonic() - reserved.began)
            rate = reserved.price.per_hour if reserved.price else 0.0
            cost = min(reserved.amount, rate * lived / 3600)
            self._spent += cost
            return cost
