"""Metrics: one table, closed label sets, base units."""

from __future__ import annotations

import re

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ca.runtime.metrics import TABLE, Kind, Metric, Metrics, code_class


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_every_row_keeps_the_rules_of_names(row: Metric) -> None:
    """Prefix, suffix, a sentence of help, closed label sets that name no caller's choice."""
    assert re.fullmatch(r"sojourn_[a-z_]+", row.name)
    assert row.name.endswith("_total") == (row.kind is Kind.COUNTER)
    assert (row.unit == "seconds") == row.name.endswith("_seconds")
    assert bool(row.buckets) == (row.kind is Kind.HISTOGRAM)
    assert not row.help[0].islower()
    assert not row.help.endswith(".")
    for label, values in row.labels.items():
        assert values
        assert len(set(values)) == len(values)
        assert label not in {"id", "path", "task", "lease", "instance", "spiffe_id", "name", "node"}


def test_names_are_given_once() -> None:
    """One row per metric."""
    assert len({row.name for row in TABLE}) == len(TABLE)


def test_counting_setting_observing() -> None:
    """Each kind has its verb."""
    metrics = Metrics()
    metrics.count("sojourn_leases_closed_total", 2, engine="postgres", reason="task-ended")
    metrics.set("sojourn_tasks_live", 7)
    metrics.add("sojourn_tasks_live", -1)
    metrics.observe("sojourn_revocation_seconds", 0.02)
    metrics.ticks("reaper")("retried")
    assert metrics.value("sojourn_leases_closed_total", engine="postgres", reason="task-ended") == 2
    assert metrics.value("sojourn_tasks_live") == 6
    assert metrics.value("sojourn_loop_ticks_total", loop="reaper", outcome="retried") == 1
    assert 'sojourn_revocation_seconds_bucket{le="0.05"} 1.0' in metrics.render().decode()


def test_two_processes_in_one_share_nothing() -> None:
    """Each has a registry of its own."""
    one, two = Metrics(), Metrics()
    one.count("sojourn_tasks_opened_total")
    assert (one.value("sojourn_tasks_opened_total"), two.value("sojourn_tasks_opened_total")) == (1, 0)


def test_a_count_begins_at_zero_and_a_gauge_says_nothing_until_it_is_set() -> None:
    """A rate needs its zero; an expiry of 1970 would raise an alarm."""
    body = Metrics().render().decode()
    assert 'sojourn_decisions_total{effect="deny"} 0.0' in body
    assert "sojourn_svid_expiry_timestamp_seconds" not in body


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("sojourn_unknown_total", {}),
        ("sojourn_decisions_total", {}),
        ("sojourn_decisions_total", {"effect": "perhaps"}),
        ("sojourn_decisions_total", {"effect": "permit", "task": "t1"}),
        ("sojourn_tasks_live", {}),
    ],
)
def test_what_is_not_in_the_table_is_a_mistake_of_ours(name: str, labels: dict[str, str]) -> None:
    """A caller's word never becomes a label."""
    with pytest.raises(RuntimeError):
        Metrics().count(name, **labels)


def test_an_unknown_loop_fails_when_it_starts() -> None:
    """Not at its first tick, which would end the process."""
    with pytest.raises(RuntimeError, match="nonsense"):
        Metrics().ticks("nonsense")


def test_the_rendering_is_what_prometheus_reads() -> None:
    """By its own parser."""
    metrics = Metrics()
    metrics.observe("sojourn_create_seconds", 1.5, engine="postgres")
    families = {family.name for family in text_string_to_metric_families(metrics.render().decode())}
    assert {"sojourn_create_seconds", "sojourn_decisions"} <= families


def test_classes_of_status() -> None:
    """Five of them, whatever comes."""
    assert [code_class(status) for status in (100, 204, 404, 503, 999, 0)] == ["1xx", "2xx", "4xx", "5xx", "5xx", "1xx"]
