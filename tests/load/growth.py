"""A file costs the same after a million files as after none, and so does a poll. Run by `make load-growth`.

Two stages, one empty, one with a past: ledger rows made in the database, and objects in processed/. Consumers of both
get the same files in turns, so that what else the machine does meets both alike. Fails when the median time per file
grew by more than RATIO, or when a poll made more requests.
"""

import argparse
import http.client
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from http import HTTPStatus
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

from tests.doubles.faulty_store import FaultyStore
from tests.load.stages import load_stage, say
from tests.stage.feeds import RandomFeed
from tests.stage.stage import Process, Stage, wait_until
from tests.stage.store import PROCESSED

RATIO = 1.2
THREADS = 8
PAST = """
INSERT INTO ingest.ledger (bucket, prefix, key, etag, size, sha256, epoch, key_time, object_time, first_seen_at,
                           first_seen_by, decision, state, applied_at, archived_at, archive_key, done_at)
SELECT %(bucket)s, 'automations/inc/', format('automations/inc/changes/%%s.csv', to_char(at, 'YYYY-MM-DD"T"HH24MISS')),
       md5(number::text), 4711, repeat(md5(number::text), 2), 1, at, at, at,
       'notification', 'new', 'done', at, at, format('automations/inc/processed/%%s.csv', number), at
FROM (SELECT number, timestamptz '1990-01-01' + make_interval(secs => 60 * number) AS at
      FROM generate_series(1, %(files)s) AS number) AS past"""
OUTBOX = """
INSERT INTO ingest.outbox (kind, file_id, created_at, sent_at, handled_at)
SELECT kind, file_id, applied_at, applied_at, CASE kind WHEN 'history' THEN applied_at END
FROM ingest.ledger, unnest('{geocode,history}'::text[]) AS kind"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ledger", type=int, default=1_000_000)
    parser.add_argument("--archived", type=int, default=100_000)
    parser.add_argument("--files", type=int, default=60)
    asked = parser.parse_args()
    with ExitStack() as stack:
        young, old = (
            stack.enter_context(load_stage(Path(stack.enter_context(TemporaryDirectory())))) for _ in range(2)
        )
        give_past(old, asked.ledger, asked.archived)
        consumers = [consume(stage) for stage in (young, old)]
        times: dict[Stage, list[float]] = {young: [], old: []}
        for number, file in enumerate(RandomFeed(1, tickets=2000).files(asked.files + 10, rows=100)):
            turn = (young, old) if number % 2 else (old, young)
            for stage in turn:
                took = seconds(stage, file.key, file.body)
                if number >= 10:  # the first ones warm up
                    times[stage].append(took)
        for consumer in consumers:
            consumer.stop()
        medians = {stage: statistics.median(times[stage]) for stage in times}
        ratio = medians[old] / medians[young]
        say(f"{asked.ledger} ledger rows: {medians[old] * 1000:.1f} ms per file, none: {medians[young] * 1000:.1f} ms;")
        say(f"ratio {ratio:.2f}, over {asked.files} files each")
        requests = [requests_of_a_poll(stage) for stage in (young, old)]
        say(f"requests of a poll with {asked.archived} archived objects: {requests[1]}, with few: {requests[0]}")
        return 0 if ratio <= RATIO and requests[0] == requests[1] else 1


def give_past(stage: Stage, ledger: int, archived: int) -> None:
    stage.connection.execute(PAST, {"bucket": stage.bucket.name, "files": ledger})
    stage.connection.execute(OUTBOX)
    stage.connection.execute("VACUUM ANALYZE")
    began = time.monotonic()
    archive(stage, archived)
    say(f"{archived} archived objects in {time.monotonic() - began:.0f} s")


def archive(stage: Stage, count: int) -> None:
    """Put empty objects into processed/, unsigned: a million signatures take longer than the million objects."""
    stage.bucket.s3.put_bucket_acl(Bucket=stage.bucket.name, ACL="public-read-write")
    store = urlsplit(stage.environment["RUSTFS_ENDPOINT"])

    def put(first: int) -> None:
        connection = http.client.HTTPConnection(store.hostname or "", store.port, timeout=60)
        for number in range(first, count, THREADS):
            connection.request("PUT", f"/{stage.bucket.name}/{PROCESSED}{number:07}.csv", b"")
            answer = connection.getresponse()
            answer.read()
            assert answer.status == HTTPStatus.OK, answer.status
        connection.close()

    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(put, range(THREADS)))


def consume(stage: Stage) -> Process:
    stage.environment |= {"FLEETTICKETS_MAX_REJECT_SHARE": "1", "FLEETTICKETS_HISTORY_INTERVAL": "3600"}
    consumer = stage.start("consume")
    wait_until(lambda: "consuming" in consumer.output(), "the consumer is there")
    return consumer


def seconds(stage: Stage, key: str, body: bytes) -> float:
    """From the delivery to the end of the tail, by the ledger's own times."""
    stage.bucket.put(key, body)
    stage.announce(key)
    # With the bucket, for the index: a look at a million rows would itself cost what is measured.
    one = "FROM ingest.ledger WHERE bucket = %s AND key = %s AND state = 'done'"
    wait_until(lambda: stage.query(f"SELECT 1 {one}", stage.bucket.name, key), key, timeout=30)
    took = f"SELECT extract(epoch FROM done_at - first_seen_at)::float8 {one}"  # noqa: S608
    return float(stage.one(took, stage.bucket.name, key))


def requests_of_a_poll(stage: Stage) -> dict[str, int]:
    with FaultyStore(stage.environment["RUSTFS_ENDPOINT"]) as store:
        stage.environment["RUSTFS_ENDPOINT"] = store.url
        ended = stage.run("poll")
        assert ended.returncode == 0, ended.stderr
        return dict(store.asked)


if __name__ == "__main__":
    sys.exit(main())
