"""docs/alerts.yml and docs/grafana.json speak of metrics, words and commands that there are."""

import json
import re

import pytest
from prometheus_client.metrics import MetricWrapperBase

from consumer.program import program
from consumer.upkeep.judging import Word
from publisher import metrics
from tests.promises import ROOT

ALERTS, DASHBOARD = ROOT / "docs" / "alerts.yml", ROOT / "docs" / "grafana.json"
SAMPLES = {
    sample
    for made in vars(metrics).values() if isinstance(made, MetricWrapperBase)
    for family in made.describe()
    for sample in (family.name, *(f"{family.name}_{kind}" for kind in ("total", "bucket", "sum", "count", "info")))
}  # fmt: skip


@pytest.mark.parametrize("page", [ALERTS, DASHBOARD], ids=lambda page: page.name)
def test_every_metric_is_there(page: object) -> None:
    named = set(re.findall(r"\bfleettickets_[a-z_]+", page.read_text()))  # type: ignore[attr-defined]
    assert named
    assert named - SAMPLES == set()


def test_every_word_is_one_of_the_verdicts() -> None:
    words = {word for found in re.findall(r'word=~"([^"]+)"', ALERTS.read_text()) for word in found.split("|")}
    assert words == {word.value for word in Word} - {Word.FLOWING.value, Word.COULD_NOT_LOOK.value}


def test_every_alert_says_what_to_do_with_a_command_that_there_is() -> None:
    text = ALERTS.read_text()
    assert text.count("- alert: ") == text.count(" do: ") == text.count(" summary: ")
    commands = {command.name for command in program.registered_commands} | {
        group.name for group in program.registered_groups
    }
    assert set(re.findall(r"fleettickets ([a-z-]+)", text)) - commands == set()


def test_the_dashboard_is_one() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert all(target["expr"] for panel in panels for target in panel.get("targets", ()))
