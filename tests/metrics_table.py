"""The tables of docs/metrics.md, of the metrics that there are."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase

from publisher import metrics

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
