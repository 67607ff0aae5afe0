"""What is told of spans: to nobody, or to OpenTelemetry, in the trace that came along or in the one that was made."""

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import structlog
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from consumer.commands.doctor import traces_examined
from consumer.upkeep.findings import Level
from publisher import otel
from publisher.broker import publishing, tracing
from publisher.broker.topology import Queue
from publisher.commands.recording import recording, require_exporter
from publisher.errors import Misconfigured, NotConfirmed
from publisher.heartbeat import ProcessKind
from publisher.settings import TracesSettings, load
from publisher.spans import UNRECORDED, Spans
from publisher.trace import Trace
from tests.doubles.certificates import Authority
from tests.doubles.collector import Collector

GIVEN = Trace("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", state="a=1")
ENDPOINT, LIBRARY = "OTEL_EXPORTER_OTLP_ENDPOINT", "opentelemetry.exporter.otlp.proto.http.trace_exporter"


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for field in TracesSettings.model_fields.values():
        monkeypatch.delenv(str(field.validation_alias), raising=False)


def recorded(given: Trace, *, fails: bool = False) -> dict[str, ReadableSpan]:
    """What a message and its delivery are told as, by name."""
    memory = InMemorySpanExporter()
    with otel.recording(load(TracesSettings), "consumer", memory) as spans:
        with suppress(NotConfirmed), tracing.sending(spans, publishing.arrival(b"{}", given)) as sent:
            assert (sent.trace.id, sent.trace.state) == (given.id, given.state)
            if fails:
                raise NotConfirmed("late", "no confirm in time")
        delivery = tracing.processing(spans, Queue.FILES, sent.trace, 2, redelivered=False)
        now = datetime.now(UTC)
        delivery.stage("opened", now, now + timedelta(seconds=2))
        delivery.stage("staged", now, now - timedelta(seconds=2))
        delivery.links([Trace.of(b"another")])
        delivery.tell({"fleettickets.key": "a\x1b[31m key\n"})
        tracing.processing(spans, Queue.HISTORY, sent.trace, 2, redelivered=True)  # left to others, and never told of
        delivery.end()
    return {span.name: span for span in memory.get_finished_spans()}


def hexadecimal(number: int) -> str:
    return f"{number:032x}"


@pytest.mark.parametrize("given", [GIVEN, Trace.of(b"{}")])
def test_every_span_is_of_the_trace_and_begins_where_the_one_before_ended(given: Trace) -> None:
    spans = recorded(given)
    assert set(spans) == {"send fleettickets.events", "process fleettickets.files", "opened", "staged"}
    assert {hexadecimal(span.context.trace_id) for span in spans.values()} == {given.id}
    sent, delivery = spans["send fleettickets.events"], spans["process fleettickets.files"]
    if given.is_new:
        assert sent.parent is None
    else:
        assert sent.parent is not None
        assert f"{sent.parent.span_id:016x}" == given.parent
    assert delivery.parent is not None
    assert delivery.parent.span_id == sent.context.span_id
    for name, seconds in (("opened", 2), ("staged", 0)):
        stage = spans[name]
        assert stage.parent is not None
        assert stage.parent.span_id == delivery.context.span_id
        assert (stage.end_time or 0) - (stage.start_time or 0) == seconds * 1_000_000_000
    assert [hexadecimal(link.context.trace_id) for link in delivery.links] == [Trace.of(b"another").id]
    assert (delivery.attributes or {})["fleettickets.key"] == r"a\x1b[31m key\n"
    assert dict(sent.attributes or {}) == {
        "messaging.system": "rabbitmq",
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "messaging.destination.name": "fleettickets.events:files",
        "messaging.rabbitmq.destination.routing_key": "files",
        "messaging.message.body.size": 2,
    }
    assert sent.resource.attributes["service.name"] == "fleettickets-consumer"


def test_what_failed_is_told_as_that() -> None:
    span = recorded(GIVEN, fails=True)["send fleettickets.events"]
    assert (span.attributes or {})["error.type"] == "NotConfirmed"
    assert not span.status.is_ok


def test_a_trace_that_nobody_samples_stays_one_and_is_not_exported() -> None:
    memory = InMemorySpanExporter()
    unsampled = Trace(GIVEN.id, GIVEN.parent, flags=0)
    with (
        otel.recording(load(TracesSettings), "consumer", memory) as spans,
        tracing.sending(spans, publishing.arrival(b"{}", unsampled)) as sent,
    ):
        pass
    assert (sent.trace.id, sent.trace.flags) == (unsampled.id, 0)
    assert memory.get_finished_spans() == ()


def test_the_name_of_the_service_is_the_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "tickets")
    assert recorded(GIVEN)["opened"].resource.attributes["service.name"] == "tickets"


def test_where_nobody_records_what_came_before_is_sent_on() -> None:
    with tracing.sending(UNRECORDED, publishing.arrival(b"{}", GIVEN)) as sent:
        assert sent == publishing.arrival(b"{}", GIVEN)
    assert tracing.processing(UNRECORDED, Queue.FILES, GIVEN, 2, redelivered=False).trace == GIVEN


@pytest.mark.parametrize(
    ("variables", "address"),
    [
        ({}, ""),
        ({ENDPOINT: ""}, ""),
        ({ENDPOINT: "http://c:4318"}, "http://c:4318/v1/traces"),
        ({ENDPOINT: "http://c:4318/otlp/"}, "http://c:4318/otlp/v1/traces"),
        ({ENDPOINT: "http://c:4318", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://t/x"}, "http://t/x"),
        ({ENDPOINT: "http://c:4318", "OTEL_SDK_DISABLED": "True"}, ""),
        ({ENDPOINT: "http://c:4318", "OTEL_TRACES_EXPORTER": "none"}, ""),
    ],
)
def test_spans_are_sent_where_the_variables_say_and_nowhere_by_themselves(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], address: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert load(TracesSettings).address == address


@pytest.mark.parametrize("url", ["collector:4318", "http://user:s3cret@c:4318", "http://c:4318?key=s3cret"])
def test_an_address_that_is_none_is_refused_and_not_shown(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv(ENDPOINT, url)
    with pytest.raises(Misconfigured, match=f"{ENDPOINT} is wrong") as complaint:
        load(TracesSettings)
    assert "s3cret" not in str(complaint.value)


def test_what_the_library_reads_by_itself_may_stand_in_the_file_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", dict(os.environ) | {"OTEL_SERVICE_NAME": "of the environment"})
    Path(".env").write_text(f"{ENDPOINT}=http://c:4318\nOTEL_SERVICE_NAME=x\nOTEL_EXPORTER_OTLP_TIMEOUT=7\nOTHER=1\n")
    require_exporter(load(TracesSettings))
    assert os.environ["OTEL_EXPORTER_OTLP_TIMEOUT"] == "7"
    assert os.environ["OTEL_SERVICE_NAME"] == "of the environment"
    assert "OTHER" not in os.environ


def lines_of_recording() -> tuple[Spans, list[str]]:
    with structlog.testing.capture_logs() as lines, recording(ProcessKind.CONSUMER) as spans:
        pass
    return spans, [f"{line['event']}: {line.get('detail', '')}" for line in lines]


def test_without_a_word_of_it_nothing_is_imported_and_nothing_said() -> None:
    assert lines_of_recording() == (UNRECORDED, [])


def test_a_library_that_is_missing_is_told_and_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENDPOINT, "http://127.0.0.1:1")
    monkeypatch.setitem(sys.modules, LIBRARY, None)
    spans, (line,) = lines_of_recording()
    assert spans is UNRECORDED
    assert line == "traces not sent: the exporter is not installed: pip install 'fleettickets[otel]'"
    (finding,) = traces_examined(load(TracesSettings))
    assert (finding.level, "pip install" in finding.found) == (Level.NOTE, True)


def test_another_protocol_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENDPOINT, "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    _, (line,) = lines_of_recording()
    assert "OTEL_EXPORTER_OTLP_PROTOCOL is 'grpc'" in line


def test_the_doctor_asks_the_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(traces_examined(load(TracesSettings))) == []
    with Collector() as collector:
        monkeypatch.setenv(ENDPOINT, collector.url)
        (finding,) = traces_examined(load(TracesSettings))
        assert (finding.level, finding.found) == (Level.OK, f"{collector.url}/v1/traces takes them")
        collector.is_away = True
        (finding,) = traces_examined(load(TracesSettings))
        assert (finding.level, "400" in finding.found) == (Level.NOTE, True)
    (finding,) = traces_examined(load(TracesSettings))
    assert (finding.level, "takes none" in finding.found) == (Level.NOTE, True)


def test_a_private_authority_is_trusted_where_it_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    authority = Authority(tmp_path, "private")
    with Collector(certificate=authority.certificate()) as collector:
        monkeypatch.setenv(ENDPOINT, collector.url)
        (finding,) = traces_examined(load(TracesSettings))
        assert (finding.level, "certificate" in finding.found.lower()) == (Level.NOTE, True)
        monkeypatch.setenv("FLEETTICKETS_CA_FILE", str(authority.file))
        (finding,) = traces_examined(load(TracesSettings))
        assert finding.level is Level.OK


def test_a_collector_that_is_away_is_told_of_once_and_once_more_when_it_is_back() -> None:
    class Exporter(SpanExporter):
        answers: Iterator[SpanExportResult] = iter(
            [SpanExportResult.FAILURE, SpanExportResult.FAILURE, SpanExportResult.SUCCESS, SpanExportResult.SUCCESS]
        )

        def export(self, _spans: object) -> SpanExportResult:
            return next(self.answers)

    told = otel.TellingExporter(Exporter(), "http://c/v1/traces")
    with structlog.testing.capture_logs() as lines:
        for _ in range(4):
            told.export([])
    assert [line["event"] for line in lines] == ["traces not sent", "traces sent again"]
