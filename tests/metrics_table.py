"""The tables of docs/metrics.md, of the metrics that there are; `make metrics` writes them."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase

from publisher import metrics
from tests.promises import ROOT

PAGE = ROOT / "docs" / "metrics.md"
BEGIN, END = "<!-- metrics: begin, written by make metrics -->\n", "<!-- metrics: end -->\n"
OF_WHOM = {
    "a consumer": metrics.CONSUMER, "the webhook": metrics.WEBHOOK, "the read API": metrics.SERVE,
    "`poll --every`": metrics.POLLER, "`sqs`": metrics.BRIDGE,
    "`status --textfile`": metrics.STATE, "`poll --textfile`": metrics.LAST_POLL, "`drain --textfile`": metrics.DRAIN,
}  # fmt: skip


def tables() -> str:
    return "\n".join(f"### Of {whose}\n\n{table(registry)}" for whose, registry in OF_WHOM.items())


def table(registry: CollectorRegistry) -> str:
    rows = [f"| `{name}{labels}` | {told} |\n" for name, labels, told in sorted(_described(registry))]
    return "".join(["| metric | |\n", "| --- | --- |\n", *rows])


def _described(registry: CollectorRegistry) -> Iterator[tuple[str, str, str]]:
    """Name, labels and help of each that is ours; the others are those of every Python process."""
    for made in vars(metrics).values():
        if isinstance(made, MetricWrapperBase) and made in registry._collector_to_names:  # noqa: SLF001 - it has no other
            (family,) = made.describe()
            labels = ",".join(made._labelnames)  # noqa: SLF001 - the same
            name = f"{family.name}_total" if family.type == "counter" else family.name
            yield name, f"{{{labels}}}" if labels else "", family.documentation


def written() -> str:
    """What the page has of them."""
    return PAGE.read_text().partition(BEGIN)[2].partition(END)[0].strip("\n") + "\n"


def write() -> None:
    before, _, rest = PAGE.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(f"{before}{BEGIN}\n{tables()}\n{END}{after}")


if __name__ == "__main__":
    write()
