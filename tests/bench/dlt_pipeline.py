"""dlt as its documentation has it: files of a bucket, incremental by their time, merged into PostgreSQL by ticket.

Runs in the environment of the competitor, and prints how long the pipeline took.
"""

import json
import os
import sys
import time
from typing import Any

import dlt  # type: ignore[import-not-found]
from dlt.sources.credentials import AwsCredentials  # type: ignore[import-not-found]
from dlt.sources.filesystem import filesystem, read_csv_duckdb  # type: ignore[import-not-found]


def main() -> int:
    name = os.environ["PIPELINE"]
    credentials = AwsCredentials(
        aws_access_key_id=os.environ["RUSTFS_ACCESS_KEY"],
        aws_secret_access_key=os.environ["RUSTFS_SECRET_KEY"],
        endpoint_url=os.environ["RUSTFS_ENDPOINT"],
        region_name=os.environ.get("RUSTFS_REGION", "default"),
    )
    files: Any = filesystem(
        f"s3://{os.environ['RUSTFS_BUCKET']}/automations/inc/changes", credentials=credentials, file_glob="*.csv"
    )
    files.apply_hints(incremental=dlt.sources.incremental("modification_date"))
    seen: set[str] = set()

    def count(item: Any) -> Any:
        seen.add(item["file_url"])
        return item

    files.add_map(count)
    rows = (files | read_csv_duckdb(use_pyarrow=True, header=True, all_varchar=True)).with_name("inc")
    rows.apply_hints(
        write_disposition="merge", primary_key="ticket_id", columns={"source_updated_at": {"dedup_sort": "desc"}}
    )
    pipeline = dlt.pipeline(
        name, destination=dlt.destinations.postgres(os.environ["DATABASE_URL"]), dataset_name=name, progress=None
    )
    began = time.perf_counter()
    pipeline.run(rows).raise_on_failed_jobs()
    told = {"files": len(seen), "seconds": time.perf_counter() - began}
    sys.stdout.write(f"{json.dumps(told)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
