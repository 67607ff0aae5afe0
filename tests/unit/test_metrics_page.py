"""docs/metrics.md has every metric, as the code describes it."""

from tests import metrics_table


def test_the_tables_are_those_of_the_metrics() -> None:
    assert metrics_table.written() == metrics_table.tables(), "make metrics writes them"
