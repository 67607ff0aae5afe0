"""Each store's way in, with real processes: whatever its name holds, a file that is announced becomes rows once."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from tests.bodies import body
from tests.doubles import mqtt
from tests.doubles.receiver import Receiver
from tests.stage.broker import DEAD_FILES, FILES
from tests.stage.feeds import OddKeys, csv, ticket
from tests.stage.stage import Stage, wait_until
from tests.stage.store import CHANGES, PROCESSED

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef

Announce = Callable[[Stage, list[bytes]], None]


def by_amqp(stage: Stage, bodies: list[bytes]) -> None:
    stage.broker.publish(bodies)


def by_webhook(stage: Stage, bodies: list[bytes]) -> None:
    receiver = Receiver(stage)
    receiver.wait()
    assert [receiver.post(found).status_code for found in bodies] == [200] * len(bodies)
    receiver.process.stop()


def by_mqtt(stage: Stage, bodies: list[bytes]) -> None:
    assert stage.run("topology", "--mqtt-topic", mqtt.TOPIC).returncode == 0
    mqtt.publish(mqtt.mqtt_address(stage.services), stage.broker.vhost, bodies)


def put(stage: Stage, keys: OddKeys) -> None:
    """Two files at a time have names that one decoding too many or too few makes equal."""
    if not stage.processes:
        stage.start("consume")
    stage.bucket.put_all({key: csv([ticket(f"INC {key}")]) for key in keys.all})


def assert_unharmed(stage: Stage, keys: OddKeys, seen_by: str) -> None:
    stage.wait_for("done", *keys.all)
    wait_until(lambda: stage.broker.held(FILES) == 0, "nothing is left to do")
    found = stage.query('SELECT * FROM ingest.ledger WHERE key = ANY(%s) ORDER BY key COLLATE "C"', keys.all)
    assert {row["key"]: row["decision"] for row in found if row["decision"] == "ignored"}.keys() == set(keys.ignored)
    for row in (row for row in found if row["decision"] != "ignored"):
        assert (row["rows_inserted"], row["first_seen_by"]) == (1, seen_by)
        assert stage.one("SELECT count(*) FROM tickets.inc WHERE ticket_id = %s", f"INC {row['key']}") == 1
        assert row["archive_key"] == row["key"].replace(CHANGES, PROCESSED)
        assert stage.bucket.read(row["archive_key"]) == csv([ticket(f"INC {row['key']}")])
    assert len(found) == len(keys.all)
    assert set(stage.waiting()) >= set(keys.ignored)
    assert not set(stage.waiting()) & set(keys.applied)
    assert stage.query("SELECT key FROM ingest.ledger WHERE decision = 'missing'") == []
    assert stage.broker.ready(DEAD_FILES) == 0


# A stage of one test comes before those that share one, whose consumer would take its deliveries.


def test_what_ceph_sends_by_amqp_is_applied(stage: Stage) -> None:
    stage.bucket.notify(stage.broker)
    keys = OddKeys(21)
    put(stage, keys)
    assert_unharmed(stage, keys, "notification")


def test_an_upload_in_parts_is_applied_when_it_is_complete(stage: Stage) -> None:
    stage.bucket.notify(stage.broker)
    consumer = stage.start("consume")
    key, s3 = f"{CHANGES}2026-06-25T142000.csv", stage.bucket.s3
    columns = ("ticket_id", "owner")
    rows = [ticket(f"INC{number:06}", owner="x" * 200) for number in range(40_000)]
    parts = [csv(rows[:30_000], columns), csv(rows[30_000:], columns).split(b"\n", 1)[1]]
    assert len(parts[0]) > 5 << 20  # the least that a part before the last may have
    begun = s3.create_multipart_upload(Bucket=stage.bucket.name, Key=key)["UploadId"]
    # Ceph 16 keeps quiet until the upload is complete; later releases announce its beginning as if it were an object.
    stage.broker.publish([body("ceph_multipart_begun", stage.bucket.name, key)])
    stage.wait_for("done", key)
    assert stage.ledger(key)["decision"] == "missing"
    uploaded: list[CompletedPartTypeDef] = []
    for number, part in enumerate(parts, 1):
        answer = s3.upload_part(Bucket=stage.bucket.name, Key=key, UploadId=begun, PartNumber=number, Body=part)
        uploaded.append({"ETag": answer["ETag"], "PartNumber": number})
    s3.complete_multipart_upload(Bucket=stage.bucket.name, Key=key, UploadId=begun, MultipartUpload={"Parts": uploaded})
    applied = "SELECT * FROM ingest.ledger WHERE key = %s AND state = 'done' AND applied_at IS NOT NULL"
    wait_until(lambda: stage.query(applied, key), "the complete file is applied")
    (row,) = stage.query(applied, key)
    assert (row["decision"], row["rows_inserted"], row["size"]) == ("new", 40_000, sum(map(len, parts)))
    assert row["etag"].endswith("-2")
    assert stage.bucket.read(row["archive_key"]) == b"".join(parts)
    assert stage.waiting() == []
    consumer.stop()


@pytest.mark.parametrize(
    ("number", "store", "announce"),
    [
        pytest.param(0, "rustfs_amqp", by_amqp, id="RustFS by AMQP"),
        pytest.param(1, "rustfs_amqp", by_mqtt, id="RustFS by MQTT"),
        pytest.param(2, "rustfs_webhook", by_webhook, id="RustFS by webhook"),
        pytest.param(3, "minio", by_amqp, id="MinIO by AMQP"),
        pytest.param(4, "minio", by_webhook, id="MinIO by webhook"),
        pytest.param(5, "versitygw", by_amqp, id="VersityGW by AMQP"),
        pytest.param(6, "versitygw", by_webhook, id="VersityGW by webhook"),
        pytest.param(7, "aws_eventbridge", by_amqp, id="EventBridge's body"),
    ],
)
def test_what_a_store_sends_is_applied(shared_stage: Stage, number: int, store: str, announce: Announce) -> None:
    keys = OddKeys(number)
    put(shared_stage, keys)
    announce(shared_stage, [body(store, shared_stage.bucket.name, key) for key in keys.all])
    assert_unharmed(shared_stage, keys, "notification")


def test_what_the_poller_finds_is_applied(shared_stage: Stage) -> None:
    keys = OddKeys(20)
    put(shared_stage, keys)
    assert shared_stage.run("poll").returncode == 0
    assert_unharmed(shared_stage, keys, "poller")


def test_a_topic_without_a_routing_key_of_its_own_is_refused_in_one_line(shared_stage: Stage) -> None:
    ended = shared_stage.run("topology", "--mqtt-topic", "fleettickets/#")
    assert ended.returncode == 2
    assert "MQTT topic 'fleettickets/#'" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
