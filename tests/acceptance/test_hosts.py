"""Consumers on hosts of their own: they share the work, and one whose network is gone keeps nobody from it."""

import pytest

from tests.acceptance.test_upgrades import arriving, assert_each_was_applied_once, decisions, done
from tests.stage.feeds import RandomFeed
from tests.stage.hosts import hosts
from tests.stage.stage import Stage, wait_until


@pytest.mark.faults
@pytest.mark.promise("Exactly once", "Nothing lost")
@pytest.mark.timeout(500)
def test_a_host_that_falls_off_the_network_under_load_and_comes_back(stage: Stage) -> None:
    files = RandomFeed(53, tickets=60).files(150, rows=8)
    with hosts(stage, 3) as machines:
        consumers = [machine.start("consume") for machine in machines]
        with arriving(stage, files, each_seconds=0.05):
            wait_until(lambda: done(stage) >= 30, "work is under way")
            machines[0].unplug()
        stage.wait_for("done", *(file.key for file in files), timeout=300)
        assert len(decisions(consumers[:1])) < len(files)
        machines[0].plug()
        wait_until(lambda: consumers[0].output().count('"consuming"') >= 2, "it is connected anew", timeout=180)
        stage.wait_for_history()
        for consumer in consumers:
            consumer.stop()
        told = [len(decisions([consumer])) for consumer in consumers]
        assert min(told) > 0, f"all three worked: {told}"
        assert_each_was_applied_once(stage, consumers, files)
