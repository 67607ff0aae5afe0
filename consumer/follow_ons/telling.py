"""What is told of a follow-on that is done: for which traces, however many files asked for it."""

from collections.abc import Sequence

import structlog

from publisher.trace import Trace

_OF_ONE_LINE = 100
log = structlog.get_logger()


def tell_done(event: str, traces: Sequence[Trace], **fields: object) -> None:
    """One line, and more where the ids have no room in it."""
    ids = list(dict.fromkeys(trace.id for trace in traces))
    log.info(event, **fields, trace_ids=ids[:_OF_ONE_LINE])
    for begin in range(_OF_ONE_LINE, len(ids), _OF_ONE_LINE):
        log.info("also for", done=event, trace_ids=ids[begin : begin + _OF_ONE_LINE])
