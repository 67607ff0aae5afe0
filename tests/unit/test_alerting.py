"""What is told of an alert, and what of the receiver's address is."""

from datetime import UTC, datetime, timedelta
from threading import Event
from uuid import UUID

import pytest
import tenacity

from consumer.settings import AlertSettings
from consumer.upkeep import alerting
from consumer.upkeep.alerting import Alert, AlertReceiver, Phase, Whence, event_of, text_of
from publisher.errors import DependencyDown, Misconfigured
from publisher.settings import load

WHENCE = Whence("isptickets", "s3.example.com:443", ["crq", "inc"])
BEGAN = datetime(2026, 6, 25, 11, 20, tzinfo=UTC)
STUCK = Alert(UUID(int=7), Phase.BEGAN, "verdict STUCK", "STUCK: no consumer", "start one", BEGAN)
OVER = Alert(
    UUID(int=7), Phase.OVER, "verdict STUCK", "STUCK: no consumer", "start one", BEGAN,
    BEGAN + timedelta(minutes=12), "FLOWING: nothing waits",
)  # fmt: skip
SECRET = "Zalert1"


def test_a_person_is_told_what_why_what_to_do_since_when_and_where() -> None:
    lines = text_of(STUCK, WHENCE).splitlines()
    assert lines[:3] == [
        "fleettickets: STUCK: no consumer",
        "what to do: start one",
        "since 2026-06-25 14:20:00 EAT (11:20:00 UTC)",
    ]
    assert lines[3].startswith("bucket isptickets at s3.example.com:443, feeds crq, inc; seen by ")
    assert lines[3].endswith("; id 00000000-0000-0000-0000-000000000007-began")


def test_and_that_it_is_over() -> None:
    lines = text_of(OVER, WHENCE).splitlines()
    assert lines[:2] == [
        "fleettickets: over: STUCK: no consumer",
        "it began at 2026-06-25 14:20:00 EAT (11:20:00 UTC) and was over after 12 min; now: FLOWING: nothing waits",
    ]
    assert lines[2].endswith("; id 00000000-0000-0000-0000-000000000007-over")


def test_what_strangers_wrote_calls_nobody_and_begins_no_line() -> None:
    line = "DEAD LETTERS: <!channel> @here [pay](http://evil)\nfleettickets: all is well\x1b[0m"
    told = text_of(Alert(UUID(int=7), Phase.BEGAN, "letters x", line, "a", BEGAN), WHENCE)
    assert len(told.splitlines()) == 4
    assert not [mark for mark in ("<", ">", "@here", "[", "\x1b") if mark in told]


def test_a_program_is_told_in_a_cloudevent() -> None:
    event = event_of(OVER, WHENCE)
    assert {name: event[name] for name in ("specversion", "id", "source", "type", "subject", "time")} == {
        "specversion": "1.0",
        "id": "00000000-0000-0000-0000-000000000007-over",
        "source": "/fleettickets/isptickets",
        "type": "fleettickets.alert.over",
        "subject": "verdict STUCK",
        "time": "2026-06-25T11:32:00+00:00",
    }
    assert event["data"]["feeds"] == ["crq", "inc"]
    assert "over_at" not in event_of(STUCK, WHENCE)["data"]


@pytest.mark.parametrize(
    "url", ["https://127.0.0.1:1/Zalert1", "http://u:Zalert1@127.0.0.1:1/", "http://nowhere.invalid/x?Zalert1=Zalert1"]
)
def test_of_an_address_that_is_away_the_host_alone_is_shown(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setattr(alerting, "_WAIT", tenacity.wait_none())
    receiver = AlertReceiver(url, load(AlertSettings), WHENCE, Event())
    with pytest.raises(DependencyDown) as error:
        receiver.tell(STUCK)
    assert str(error.value).startswith("the receiver of alerts is not available: ")
    assert receiver.host in str(error.value)
    assert SECRET not in f"{error.value!r} {error.value.__context__!r}"


@pytest.mark.parametrize(
    "url", ["Zalert1", "ftp://h/Zalert1", "https:///Zalert1", "http://h:Zalert1/", "http://[Zalert1"]
)
def test_what_is_no_address_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(Misconfigured) as error:
        load(AlertSettings, address=url)
    assert "FLEETTICKETS_ALERT_URL is wrong" in str(error.value)
    assert SECRET not in str(error.value)
