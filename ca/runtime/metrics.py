"""What a process counts. Every metric stands in one table with its unit and its closed label sets.

    metrics = Metrics()
    metrics.count("sojourn_decisions_total", effect="permit")
    metrics.set("sojourn_tasks_live", 12)
    metrics.observe("sojourn_revocation_seconds", 0.031)
    body = metrics.render()

A label takes one of the values written here and no other: never an id, a path or anything a caller may choose, so a
hostile caller can neither flood the registry nor be read out of it. Base units, absolute timestamps. docs/metrics.md is
drawn from the table. A name or value that isn't in it is a mistake of ours and a RuntimeError.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4


disable_created_metrics()  # type: ignore[no-untyped-call] # a second series per series, which nobody reads


class Kind(StrEnum):
    """What Prometheus calls it."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


Labels = Mapping[str, tuple[str, ...]]
Series = Counter | Gauge | Histogram
S = TypeVar("S", Counter, Gauge, Histogram)


@dataclass(frozen=True, slots=True)
class Metric:
    """One row: `unit` is a base unit, or what is counted."""

    name: str
    kind: Kind
    help: str
    unit: str
    labels: Labels = field(default_factory=dict)
    buckets: tuple[float, ...] = ()


_C, _G, _H = Kind
ENGINES = ("postgres", "ssh", "static", "svid", "mysql", "redis", "rabbitmq", "aws", "kubernetes", "oauth")
"""Kinds of target."""
_ENGINE = ENGINES
_LEASE = ("intended", "active", "in_doubt", "revoking", "revoked", "expired", "disowned")
_CLOSE = ("task-ended", "not-acknowledged", "ran-out", "asked", "operator", "never-made", "narrowed")
_END = (
    "said-so", "deadline", "silent", "process-ended", "node-silent", "parent-ended", "operator", "shutdown",
)  # fmt: skip
_LOOP = (
    "reaper", "deadlines", "processes", "outbox", "sweep", "feed", "events", "heartbeat", "beat", "gauges", "identity",
    "identities", "past", "brokers", "operators", "rotations",
    "rotation", "renewal", "rules", "policies", "nodes", "instances", "tasks", "bundles", "clock", "retention", "other",
)  # fmt: skip
_GRPC = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
    "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
    "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip
_REFUSED = (
    "untrusted", "revoked", "expired", "not-yet-valid", "malformed", "wrong-peer", "no-certificate", "protocol",
    "other",
)  # fmt: skip
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_LONG = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0)

TABLE: tuple[Metric, ...] = (
    # identity
    Metric("sojourn_svids_issued_total", _C, "SVIDs signed", "SVIDs", {"kind": ("x509", "jwt", "wit")}),
    Metric("sojourn_ca_authority_expiry_timestamp_seconds", _G,
           "When the active authority of this server ends; 0 if none signs", "seconds",
           {"kind": ("root", "x509", "jwt", "wit")}),
    Metric("sojourn_bundle_sequence", _G, "Sequence number of this trust domain's bundle", "number"),
    Metric("sojourn_bundle_authorities", _G, "Authorities in this trust domain's bundle", "authorities",
           {"kind": ("x509", "jwt", "wit")}),
    Metric("sojourn_federated_domains", _G, "Foreign trust domains with an endpoint, by what is held", "domains",
           {"state": ("fresh", "stale", "none", "refused")}),
    Metric("sojourn_bundle_fetches_total", _C, "Foreign bundles asked for, by how it ended", "fetches",
           {"outcome": ("taken", "unchanged", "older", "refused", "failed")}),
    Metric("sojourn_federation_oldest_success_timestamp_seconds", _G,
           "When the endpoint that has failed for longest last answered well; 0: never, or there is none", "seconds"),
    Metric("sojourn_leaves_revoked", _G, "Leaves that were taken back and have not expired for everybody", "leaves"),
    Metric("sojourn_revocation_list_number", _G, "Number of the active authority's newest revocation list", "number",
           {"kind": ("root", "issuing")}),
    Metric("sojourn_revocation_list_bytes", _G, "Size of the active authority's newest revocation list", "bytes",
           {"kind": ("root", "issuing")}),
    Metric("sojourn_revocation_list_next_update_timestamp_seconds", _G, "Until when that list is valid", "seconds",
           {"kind": ("root", "issuing")}),
    Metric("sojourn_nodes", _G, "Node agents by whether they are heard of", "nodes",
           {"state": ("connected", "silent")}),
    Metric("sojourn_attestations_total", _C, "Attestations by what was proven and how it ended", "attestations",
           {"kind": ("node", "workload", "direct"), "outcome": ("admitted", "refused")}),
    Metric("sojourn_platform_requests_total", _C, "Questions to clusters and issuers about tokens, pods and nodes",
           "requests",
           {"what": ("token", "pod", "node", "watch", "keys"), "outcome": ("answered", "refused", "failed")}),
    Metric("sojourn_risk_events_total", _C, "What was refused and nobody honest does", "events",
           {"kind": ("second-key", "token-twice")}),
    Metric("sojourn_attestation_sources_total", _C, "Looks at a process, by source and what it said", "looks",
           {"source": ("unix", "systemd", "k8s"), "outcome": ("said", "nothing", "cant-say", "unavailable")}),
    Metric("sojourn_instances", _G, "Attested instances", "instances", {"state": ("live", "unobserved")}),
    Metric("sojourn_rules", _G, "Identity rules in force", "rules"),
    Metric("sojourn_reloads_total", _C, "Files of rules or policies read again", "reloads",
           {"what": ("rules", "policies", "settings"), "outcome": ("taken", "refused", "held")}),
    Metric("sojourn_svid_expiry_timestamp_seconds", _G, "When this process's own SVID ends", "seconds"),
    Metric("sojourn_handshakes_refused_total", _C, "TLS handshakes refused, by class of reason", "handshakes",
           {"reason": _REFUSED}),
    Metric("sojourn_sds_refused_total", _C, "Secrets an Envoy was sent and refused", "secrets"),
    # decisions and tasks
    Metric("sojourn_decisions_total", _C, "Decisions by their answer", "decisions",
           {"effect": ("permit", "deny", "step-up")}),
    Metric("sojourn_decision_seconds", _H, "Time of one decision", "seconds",
           buckets=(0.0001, 0.00025, 0.0005, *_SECONDS)),
    Metric("sojourn_tasks_opened_total", _C, "Tasks opened", "tasks"),
    Metric("sojourn_tasks_live", _G, "Tasks that have not ended", "tasks"),
    Metric("sojourn_task_endings_total", _C, "Tasks ended, by reason", "tasks", {"reason": _END}),
    # leases
    Metric("sojourn_leases", _G, "Leases by state", "leases", {"state": _LEASE}),
    Metric("sojourn_leases_issued_total", _C, "Secrets handed over", "leases", {"engine": _ENGINE}),
    Metric("sojourn_quotas_reached_total", _C, "Secrets refused because so many are out, or lately were given",
           "secrets",
           {"quota": ("leases-per-identity", "leases-per-task", "leases-per-target", "grants-per-minute")}),
    Metric("sojourn_leases_renewed_total", _C, "Expiries moved ahead", "leases", {"engine": _ENGINE}),
    Metric("sojourn_leases_closed_total", _C, "Leases of which nothing is left", "leases",
           {"engine": _ENGINE, "reason": _CLOSE}),
    Metric("sojourn_leases_overdue", _G, "Leases whose access should have ended and is not verified gone", "leases",
           {"engine": _ENGINE}),
    Metric("sojourn_leases_overdue_oldest_timestamp_seconds", _G,
           "When the access that is overdue for longest should have ended; 0: none is", "seconds", {"engine": _ENGINE}),
    Metric("sojourn_targets_down", _G, "Targets that do not answer", "targets", {"engine": _ENGINE}),
    Metric("sojourn_rows_quarantined", _G, "Rows of the store that can't be read and were set aside", "rows",
           {"table": ("leases", "tasks", "events", "outbox")}),
    Metric("sojourn_create_seconds", _H, "From the intent to the hand-over", "seconds", {"engine": _ENGINE}, _SECONDS),
    Metric("sojourn_revocation_seconds", _H, "From the decision to end access to its verified end", "seconds",
           buckets=_LONG),
    Metric("sojourn_sessions_cut_total", _C, "Open sessions ended at a target", "sessions", {"engine": _ENGINE}),
    Metric("sojourn_target_calls_total", _C, "Calls to targets by how they ended", "calls",
           {"engine": _ENGINE, "outcome": ("done", "down", "unknown", "refused")}),
    Metric("sojourn_strays_total", _C, "Principals found at a target without a lease, and removed", "principals",
           {"engine": _ENGINE}),
    # events and audit
    Metric("sojourn_epoch", _G, "Number of the newest event", "number"),
    Metric("sojourn_event_streams", _G, "Event streams held open", "streams"),
    Metric("sojourn_event_streams_dropped_total", _C, "Event streams dropped because their reader was slow", "streams"),
    Metric("sojourn_forgotten_total", _C, "What is over and was forgotten after its time", "rows",
           {"what": ("events", "receipts", "tasks", "leases", "requests")}),
    Metric("sojourn_receipts_total", _C, "Receipts written to the audit", "receipts"),
    Metric("sojourn_outbox", _G, "Messages to others that are not yet confirmed", "messages"),
    # wires
    Metric("sojourn_http_requests_total", _C, "Answered HTTP requests by class of status", "requests",
           {"code": ("1xx", "2xx", "3xx", "4xx", "5xx")}),
    Metric("sojourn_http_seconds", _H, "Time to answer an HTTP request", "seconds", buckets=_SECONDS),
    Metric("sojourn_grpc_calls_total", _C, "Ended gRPC calls by status", "calls", {"code": _GRPC}),
    Metric("sojourn_grpc_streams", _G, "Streams of gRPC held open", "streams"),
    Metric("sojourn_connections_refused_total", _C, "Connections refused because so many are held", "connections",
           {"reason": ("full", "one-caller")}),
    # the process
    Metric("sojourn_loop_ticks_total", _C, "Ticks of background loops", "ticks",
           {"loop": _LOOP, "outcome": ("done", "retried")}),
    Metric("sojourn_store_commits_total", _C, "Durable commits; each may hold many units of work", "commits"),
    Metric("sojourn_store_units_total", _C, "Units of work written", "units", {"outcome": ("done", "undone")}),
    Metric("sojourn_store_commit_seconds", _H, "Time of one durable commit", "seconds", buckets=_SECONDS),
    Metric("sojourn_store_full", _G, "1 while no space is left for what gives access", "boolean"),
    Metric("sojourn_clock_trusted", _G, "1 while wall and boot time agree", "boolean"),
    Metric("sojourn_ready", _G, "1 while every part is ready", "boolean"),
)  # fmt: skip


class Metrics:
    """The counts of one process, in a registry of its own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._rows = {row.name: row for row in TABLE}
        self._made: dict[str, Series] = {}
        for row in TABLE:
            if row.kind is not Kind.GAUGE:  # a count begins at zero; a gauge that was never set says nothing
                self._make(row)
        ProcessCollector(registry=self._registry)

    def count(self, name: str, amount: float = 1, /, **labels: str) -> None:
        """Add `amount` to a counter."""
        self._series(name, Counter, labels).inc(amount)

    def set(self, name: str, value: float, /, **labels: str) -> None:
        """Set a gauge."""
        self._series(name, Gauge, labels).set(value)

    def add(self, name: str, amount: float = 1, /, **labels: str) -> None:
        """Move a gauge up, or down."""
        self._series(name, Gauge, labels).inc(amount)

    def observe(self, name: str, value: float, /, **labels: str) -> None:
        """Add one observation to a histogram."""
        self._series(name, Histogram, labels).observe(value)

    def ticks(self, loop: str) -> Callable[[str], None]:
        """What `background(count=…)` wants for the loop `loop`; an unknown one fails here, not at its first tick."""
        self._check("sojourn_loop_ticks_total", {"loop": loop, "outcome": "done"})
        return lambda outcome: self.count("sojourn_loop_ticks_total", loop=loop, outcome=outcome)

    def value(self, name: str, /, **labels: str) -> float | None:
        """What a counter or gauge stands at; None when it was never set."""
        self._check(name, labels)
        return self._registry.get_sample_value(name, labels)

    def render(self) -> bytes:
        """The text format of Prometheus."""
        return generate_latest(self._registry)

    def _make(self, row: Metric) -> Series:
        names = tuple(row.labels)
        made: Series
        if row.kind is Kind.COUNTER:
            made = Counter(row.name, row.help, names, registry=self._registry)
        elif row.kind is Kind.GAUGE:
            made = Gauge(row.name, row.help, names, registry=self._registry)
        else:
            made = Histogram(row.name, row.help, names, buckets=row.buckets, registry=self._registry)
        if names and row.kind is not Kind.GAUGE:
            for values in itertools.product(*row.labels.values()):
                made.labels(*values)
        self._made[row.name] = made
        return made

    def _series(self, name: str, kind: type[S], labels: Mapping[str, str]) -> S:
        row = self._check(name, labels)
        made = self._made.get(name) or self._make(row)
        if not isinstance(made, kind):
            raise RuntimeError(f"`{name}` is a {row.kind}")  # noqa: TRY004 - a mistake of ours, whatever its form
        return made.labels(**labels) if labels else made

    def _check(self, name: str, labels: Mapping[str, str]) -> Metric:
        row = self._rows.get(name)
        if row is None:
            raise RuntimeError(f"no metric `{name}` in the table of ca/runtime/metrics.py")
        if labels.keys() != row.labels.keys():
            raise RuntimeError(f"`{name}` has the labels {sorted(row.labels)}, not {sorted(labels)}")
        for label, value in labels.items():
            if value not in row.labels[label]:
                raise RuntimeError(f"`{value}` is no value of the label `{label}` of `{name}`")
        return row


def code_class(status: int) -> str:
    """The class of an HTTP status, `4xx`."""
    return f"{min(max(status // 100, 1), 5)}xx"
