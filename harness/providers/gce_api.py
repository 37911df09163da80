"""Google's Compute API as the provider uses it: with our own deadlines, and our own errors.

Not used of google-cloud-compute, each for a measured reason: ``ExtendedOperation`` (asks the public
endpoint whatever the client was told, and shows a stockout as a retryable 503), the default retry
of ``get`` (600 s of 503 before anybody hears of it). Operations are waited for with ``wait``, in
slices, so that Ctrl-C is heard; what one failed of is told by its error code alone.
"""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from harness.deadline import Deadline, DeadlinePassed
from harness.errors import InfraError, UsageError
from harness.transports.lines import Watch

#: Another endpoint: private access, or a double. A URL; with http there are no credentials.
ENDPOINT = "AIRLOCK_COMPUTE_ENDPOINT"
SCOPE = "https://www.googleapis.com/auth/compute"
#: The zone (or all of it for this shape) is full: another may not be. The first is documented and
#: seen; the others are named in Google's documentation of "resource availability" errors.
STOCKOUT = (
    "ZONE_RESOURCE_POOL_EXHAUSTED",
    "ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS",
    "STOCKOUT",
)
QUOTA = ("QUOTA_EXCEEDED", "quotaExceeded")
#: What Google says, besides 5xx and 429, when it only wants to be asked again.
_AGAIN = (
    *("rateLimitExceeded", "userRateLimitExceeded", "RATE_LIMIT_EXCEEDED"),
    # An instance is asked to go before its insertion has ended.
    "resourceNotReady",
)


class CloudError(InfraError):
    """The API said no. ``codes`` are its own words for the reason.

    ``unmade``: it was an instance that was asked for, and there is certainly none.
    """

    unmade = False

    def __init__(self, message: str, *, codes: tuple[str, ...] = (), hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.codes = codes


class NoCapacity(CloudError):
    """The zone has none left; another may."""


class NoQuota(CloudError):
    """The project may not have more, in any zone of the region."""


class NotThere(CloudError):
    """There is no such thing (any more)."""


class Denied(CloudError):
    """The credentials do not allow it, or are none (any more)."""


@dataclass(frozen=True)
class Pace:
    """Seconds. ``patience``: for one request with its repetitions; ``operation``: for it to end.

    ``boot``: from RUNNING to a guest that answers; ``answer``: for one exchange on the wire;
    ``slice``: the longest that nobody looks whether the run is being stopped; ``look``: between two
    looks at something that is not there yet; ``end``: for a deletion.
    """

    patience: float = 240.0
    operation: float = 600.0
    boot: float = 420.0
    answer: float = 30.0
    slice: float = 10.0
    look: float = 3.0
    end: float = 300.0

    def faster(self, times: float) -> Pace:
        """The same for a double whose time runs faster. An exchange takes as long as before."""
        names = ("patience", "operation", "boot", "slice", "look", "end")
        return replace(self, **{name: getattr(self, name) / times for name in names})


class Api:
    """The calls on one project. Thread-safe. The library is imported when the first is made."""

    def __init__(self, project: str, *, pace: Pace | None = None, credentials: Any = None) -> None:
        """``credentials``: Google's object; application default credentials if not given."""
        self.project = project
        self.pace = pace or Pace()
        self._credentials = credentials
        self._clients: dict[str, Any] = {}
        self._lock = threading.Lock()

    @property
    def double(self) -> bool:
        """Whether what answers is no Google: an endpoint without TLS."""
        return os.environ.get(ENDPOINT, "").startswith("http://")

    def insert(self, zone: str, body: Mapping[str, Any], check: Watch = lambda: None) -> None:
        """Make an instance and see it run. Raises NoCapacity, NoQuota, other CloudErrors,
        DeadlinePassed; whoever catches one has to see to it that nothing is left.
        """
        import json

        name = body["name"]
        compute = self._library()
        # Names that the API does not know are an error of the library's own here.
        instance = compute.Instance.from_json(json.dumps(body))
        request = compute.InsertInstanceRequest(
            project=self.project,
            zone=zone,
            instance_resource=instance,
            # The same for each repetition: an answer that got lost must not make a second one.
            request_id=str(uuid.uuid4()),
        )
        what = f"making {name} in {zone}"
        lost: list[str] = []
        try:
            begun = self._ask(what, "Instances", "insert_unary", request, check, lost=lost)
        except CloudError as error:
            error.unmade = not lost
            raise
        try:
            self._wait(zone, begun, what, self.pace.operation, check)
        except (NoCapacity, NoQuota) as error:
            error.unmade = True
            raise

    def delete(self, zone: str, name: str, check: Watch = lambda: None) -> bool:
        """Delete an instance and see it gone; False if there was none. Raises as ``insert``."""
        request = self._library().DeleteInstanceRequest(
            project=self.project, zone=zone, instance=name, request_id=str(uuid.uuid4())
        )
        what = f"deleting {name} in {zone}"
        try:
            begun = self._ask(what, "Instances", "delete_unary", request, check)
            self._wait(zone, begun, what, self.pace.end, check)
        except NotThere:
            return False
        return True

    def instance(self, zone: str, name: str, check: Watch = lambda: None) -> Any:
        """An instance, as the library has it; NotThere."""
        request = self._library().GetInstanceRequest(project=self.project, zone=zone, instance=name)
        return self._ask(f"looking at {name} in {zone}", "Instances", "get", request, check)

    def ours(self, filter_: str) -> Iterator[Any]:
        """The instances of all zones that a filter matches."""
        request = self._library().AggregatedListInstancesRequest(
            project=self.project, filter=filter_
        )
        pages = self._ask("listing instances", "Instances", "aggregated_list", request)
        # Later pages are asked for while we iterate.
        with self._errors("listing instances"):
            for _, scope in pages:
                yield from scope.instances

    def host_keys(self, zone: str, name: str, check: Watch = lambda: None) -> dict[str, str]:
        """The SSH host keys that the guest published, type -> base64; empty: not (yet)."""
        request = self._library().GetGuestAttributesInstanceRequest(
            project=self.project, zone=zone, instance=name, query_path="hostkeys/"
        )
        what = f"asking for the host keys of {name}"
        try:
            found = self._ask(what, "Instances", "get_guest_attributes", request, check)
        except NotThere:
            return {}
        return {item.key: item.value for item in found.query_value.items}

    def serial(self, zone: str, name: str) -> bytes:
        """Everything that its serial port 1 has said; the API gives a megabyte at a time."""
        said: bytes = b""
        start = 0
        # Evidence is worth a moment: whoever reads it wants to delete the instance next.
        deadline = Deadline(self.pace.answer, f"reading the console of {name}")
        while True:
            request = self._library().GetSerialPortOutputInstanceRequest(
                project=self.project, zone=zone, instance=name, port=1, start=start
            )
            part = self._ask(
                deadline.what, "Instances", "get_serial_port_output", request, deadline=deadline
            )
            said += part.contents.encode()
            if not part.contents or part.next_ <= start:
                return said
            start = part.next_

    def _wait(self, zone: str, operation: Any, what: str, seconds: float, check: Watch) -> None:
        """Wait for the end of an operation; DeadlinePassed, or what it failed of."""
        compute = self._library()
        deadline = Deadline(seconds, what)
        request = compute.WaitZoneOperationRequest(
            project=self.project, zone=zone, operation=operation.name
        )
        while operation.status != compute.Operation.Status.DONE:
            check()
            deadline.check(hint=f"operation {operation.name} is {operation.status.name}")
            slice_ = max(0.05, min(self.pace.slice, deadline.remaining()))
            with contextlib.suppress(_Silent):
                operation = self._ask(
                    what, "ZoneOperations", "wait", request, check, deadline=deadline, answer=slice_
                )
        errors = [(error.code, error.message) for error in operation.error.errors]
        if errors or operation.http_error_status_code:
            codes = tuple(code for code, _ in errors)
            text = "; ".join(text for _, text in errors) or operation.http_error_message
            raise _error(what, codes, text)

    def _ask(
        self,
        what: str,
        client: str,
        method: str,
        request: Any,
        check: Watch = lambda: None,
        *,
        deadline: Deadline | None = None,
        answer: float = 0.0,
        lost: list[str] | None = None,
    ) -> Any:
        """One request, repeated while the service is only indisposed; errors are ours.

        ``answer``: if it takes longer than that, that is no error: _Silent. ``lost`` gets what was
        said to tries that were repeated: each of them may have been done all the same.
        """
        deadline = (deadline or Deadline(self.pace.patience, what)).part(self.pace.patience, "API")
        call = getattr(self._client(client), method)
        pause = self.pace.look / 6
        while True:
            check()
            try:
                with self._errors(what, silent=bool(answer)):
                    return call(request=request, retry=None, timeout=answer or self.pace.answer)
            except _Again as error:
                if lost is not None:
                    lost.append(str(error))
                if deadline.remaining() <= pause:
                    raise DeadlinePassed(
                        what, deadline.elapsed(), hint=f"the API said last: {error}"
                    ) from error
            time.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
            pause = min(pause * 2, self.pace.slice)

    @contextlib.contextmanager
    def _errors(self, what: str, *, silent: bool = False) -> Iterator[None]:
        """The library's errors as ours; those that pass by waiting as _Again."""
        import requests
        from google.api_core import exceptions
        from google.auth.exceptions import GoogleAuthError, TransportError

        try:
            yield
        except requests.exceptions.ReadTimeout as error:
            raise (_Silent if silent else _Again)("no answer") from error
        except (requests.exceptions.RequestException, TransportError) as error:
            raise _Again(f"{type(error).__name__}: {error}") from error
        except exceptions.GoogleAPICallError as error:
            reasons = tuple(str(each.get("reason", "")) for each in error.errors or ())
            passing = isinstance(error, exceptions.ServerError | exceptions.TooManyRequests)
            if (passing or set(reasons) & set(_AGAIN)) and not set(reasons) & set(STOCKOUT):
                raise _Again(error.message) from error
            if isinstance(error, exceptions.NotFound):
                raise NotThere(f"{what}: {error.message}", codes=reasons) from error
            if isinstance(error, exceptions.Unauthorized):
                raise _unauthenticated(what, error) from error
            raise _error(what, reasons, error.message) from error
        except GoogleAuthError as error:
            raise _unauthenticated(what, error) from error

    def _library(self) -> Any:
        """google.cloud.compute_v1: 3.4 s and 164 MB, so not before it is needed."""
        with self._lock:
            try:
                from google.cloud import compute_v1
            except ImportError as error:
                raise InfraError(
                    "google-cloud-compute is not installed", hint="pip install gpu-airlock[gcp]"
                ) from error
            return compute_v1

    def _client(self, name: str) -> Any:
        library = self._library()
        with self._lock:
            if name not in self._clients:
                make = getattr(library, f"{name}Client")
                self._clients[name] = make(**self._how())
            return self._clients[name]

    def _how(self) -> dict[str, Any]:
        """Arguments of a client: Google's own endpoint, or the one in the environment."""
        endpoint = os.environ.get(ENDPOINT, "").rstrip("/")
        scheme, _, place = endpoint.partition("://")
        if endpoint and (scheme not in ("http", "https") or not place):
            raise UsageError(f"{ENDPOINT}: {endpoint!r} is not a URL")
        if self._credentials is None:
            if scheme == "http":
                from google.auth.credentials import AnonymousCredentials

                self._credentials = AnonymousCredentials()  # type: ignore[no-untyped-call]
            else:
                self._credentials = _found()
        options = {"client_options": {"api_endpoint": endpoint}} if endpoint else {}
        return {"credentials": self._credentials, **options}


class _Again(Exception):
    """Not now; the same may be answered later."""


class _Silent(Exception):
    """Nothing was answered in the time that was given for it."""


def _found() -> Any:
    """Application default credentials; InfraError if there are none."""
    import google.auth
    from google.auth.exceptions import GoogleAuthError

    try:
        return google.auth.default(scopes=[SCOPE])[0]
    except (GoogleAuthError, OSError) as error:
        raise _unauthenticated("credentials for Google Cloud", error) from error


def _unauthenticated(what: str, error: Exception) -> Denied:
    first = next(iter(str(error).splitlines()), type(error).__name__)
    return Denied(f"{what}: {first}", hint="gcloud auth application-default login")


def _error(what: str, codes: tuple[str, ...], text: str) -> CloudError:
    """By the API's codes and nothing else: the HTTP status of a stockout is one to try again."""
    words = f"{what}: {', '.join(codes)}: {text}" if codes else f"{what}: {text}"
    if set(codes) & set(STOCKOUT):
        return NoCapacity(words, codes=codes, hint="name more zones, or try later")
    if set(codes) & set(QUOTA):
        hint = "ask for more quota, or run fewer nodes at once; other zones do not help"
        return NoQuota(words, codes=codes, hint=hint)
    if set(codes) & {"forbidden", "required", "accessNotConfigured"}:
        return Denied(words, codes=codes, hint="docs/gce.md has the roles that are needed")
    return CloudError(words, codes=codes)
