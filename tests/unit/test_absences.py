"""A service that was away is told to be back once, by the first who is served, and only by one who asked since."""

import pytest
import structlog

from publisher.absences import Absences
from publisher.errors import (
    DatabaseDown,
    DependencyDown,
    LockTimeout,
    LoginRefused,
    Misconfigured,
    NotConfirmed,
    ObjectUnavailable,
)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_it_is_back_once_and_counts_from_the_first_who_missed_it() -> None:
    clock = Clock()
    absences = Absences(clock)
    with structlog.testing.capture_logs() as lines:
        absences.wait(DatabaseDown("postgres", "refused"), 0.254)
        clock.now += 30
        absences.wait(DatabaseDown("postgres", "starting up"), 15)
        assert absences.is_away("postgres")
        clock.now += 17
        absences.served("postgres", "rabbitmq")
        absences.served("postgres")
    assert not absences.is_away("postgres")
    assert [line["event"] for line in lines] == ["waiting", "waiting", "back"]
    assert (lines[0]["retry_in_s"], lines[0]["log_level"]) == (0.25, "warning")
    assert (lines[2]["detail"], lines[2]["away_s"], lines[2]["log_level"]) == (
        "postgres is back after 47 s",
        47,
        "info",
    )


def test_who_began_before_it_was_missed_proves_nothing() -> None:
    clock = Clock()
    absences = Absences(clock)
    began = clock.now
    clock.now += 1
    absences.missed(DependencyDown("rabbitmq", "gone"))
    absences.served("rabbitmq", began=began)
    assert absences.is_away("rabbitmq")
    absences.served("rabbitmq", began=clock.now + 0.1)
    assert not absences.is_away("rabbitmq")


@pytest.mark.parametrize(
    ("error", "service"),
    [
        (DependencyDown("the bucket's store", "no answer"), "the bucket's store"),
        (LoginRefused("rabbitmq", "RABBITMQ_URL: refused"), "rabbitmq"),
        (ObjectUnavailable("the bucket's store", "of this one"), None),
        (LockTimeout("postgres", "somebody has it"), None),
        (NotConfirmed("late", "a queue without a leader"), None),
        (Misconfigured("no such queue"), None),
        (None, None),
    ],
)
def test_what_fails_one_alone_is_no_service_that_is_away(error: BaseException | None, service: str | None) -> None:
    assert Absences().missed(error) == service
