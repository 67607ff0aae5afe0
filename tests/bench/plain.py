"""The least possible script: GET, COPY into a text staging, upsert, COMMIT, copy to processed/, delete; then the next.

It keeps no ledger and no order, looks at no row, and survives nothing. Run as a process of its own by the bench, it
takes what waits in changes/ and prints how long that took.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import psycopg
from botocore.config import Config

from tests.stage.store import CHANGES, PROCESSED

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

HERE = Path(__file__).parent
MAKE_STAGING = (HERE / "make_staging.sql").read_bytes()
UPSERT = (HERE / "upsert.sql").read_bytes()
COPY = "COPY staging FROM STDIN WITH (FORMAT csv, HEADER match)"


class Plain:
    """One connection with its staging; `load` leaves the COMMIT to the caller."""

    def __init__(self, url: str) -> None:
        self.connection: psycopg.Connection[Any] = psycopg.connect(url)
        self.connection.execute(MAKE_STAGING)
        self.connection.commit()

    def load(self, body: bytes) -> None:
        with self.connection.cursor() as cursor:
            with cursor.copy(COPY) as copy:
                copy.write(body)
            cursor.execute(UPSERT)


def client() -> "S3Client":
    return boto3.client(
        "s3",
        endpoint_url=os.environ["RUSTFS_ENDPOINT"],
        aws_access_key_id=os.environ["RUSTFS_ACCESS_KEY"],
        aws_secret_access_key=os.environ["RUSTFS_SECRET_KEY"],
        region_name=os.environ.get("RUSTFS_REGION", "default"),
        config=Config(s3={"addressing_style": "path"}),
    )


def main() -> int:
    bucket, s3, plain = os.environ["RUSTFS_BUCKET"], client(), Plain(os.environ["DATABASE_URL"])
    began, files = time.perf_counter(), 0
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=CHANGES):
        for found in page.get("Contents", []):
            key = found["Key"]
            plain.load(s3.get_object(Bucket=bucket, Key=key)["Body"].read())
            plain.connection.commit()
            archived = PROCESSED + key.removeprefix(CHANGES)
            s3.copy_object(Bucket=bucket, Key=archived, CopySource={"Bucket": bucket, "Key": key})
            s3.delete_object(Bucket=bucket, Key=key)
            files += 1
    sys.stdout.write(json.dumps({"files": files, "seconds": time.perf_counter() - began}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
