"""One change file of a gigabyte, and what a real consumer needs to apply and archive it. Run by `make load-file`.

Fails when the consumer's resident memory grew past LIMIT, or when the rows are not all there.
"""

import argparse
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.load.stages import load_stage, say
from tests.stage.feeds import COLUMNS, key_at, lines, ticket
from tests.stage.stage import Process, Stage
from tests.stage.store import Bucket

PART = 16 << 20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=1024)
    parser.add_argument("--limit", type=int, default=200, help="resident memory in MB")
    parser.add_argument("--seconds", type=int, default=1800, help="give up after so long")
    asked = parser.parse_args()
    with TemporaryDirectory() as folder, load_stage(Path(folder)) as stage:
        key = key_at(0)
        rows = put(stage.bucket, key, asked.megabytes << 20)
        say(f"{asked.megabytes} MB, {rows} rows are in the bucket")
        consumer = stage.start("consume")
        stage.broker.publish([event(stage, key)])
        began, most = time.monotonic(), 0
        while not stage.query("SELECT 1 FROM ingest.ledger WHERE state = 'done'"):
            if time.monotonic() - began > asked.seconds or not consumer.running:
                sys.stderr.write(f"not done: {consumer.output()[-500:]}\n")
                return 1
            most = max(most, peak(consumer))
            time.sleep(0.5)
        found = stage.one("SELECT count(*) FROM tickets.inc")
        consumer.stop()
        say(f"applied and archived in {time.monotonic() - began:.0f} s; most resident: {most >> 10} MB")
        return 0 if found == rows and most >> 10 < asked.limit else 1


def event(stage: Stage, key: str) -> bytes:
    return stage.bucket.event(key)


def peak(process: Process) -> int:
    """The most memory that it ever had resident, in kB."""
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    return 0


def put(bucket: Bucket, key: str, size: int) -> int:
    """Upload so many bytes of tickets in parts; give the rows."""
    upload = bucket.s3.create_multipart_upload(Bucket=bucket.name, Key=key)["UploadId"]
    found, rows, total = [], 0, 0
    for number, (body, count) in enumerate(parts(size), start=1):
        answer = bucket.s3.upload_part(Bucket=bucket.name, Key=key, UploadId=upload, PartNumber=number, Body=body)
        found.append({"PartNumber": number, "ETag": answer["ETag"]})
        rows, total = rows + count, total + len(body)
    bucket.s3.complete_multipart_upload(
        Bucket=bucket.name,
        Key=key,
        UploadId=upload,
        MultipartUpload={"Parts": found},  # type: ignore[typeddict-item]
    )
    return rows


def parts(size: int) -> Iterator[tuple[bytes, int]]:
    row = ticket("#", assigned_team="Team " + "x" * 200, owner=uuid.uuid4().hex)
    text = lines([[row.get(name, "") for name in COLUMNS]]).decode()
    done = rows = 0
    while done < size:
        body, count = bytearray() if rows else bytearray(lines([COLUMNS])), 0
        while len(body) < min(PART, size - done):
            body += text.replace("#", f"INC{rows + count:09}", 1).encode()
            count += 1
        done, rows = done + len(body), rows + count
        yield bytes(body), count


if __name__ == "__main__":
    sys.exit(main())
