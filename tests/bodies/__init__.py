"""Notification bodies, one file for each shape that a store sends, all about one object of one bucket.

The object's key has a space and a plus sign in it: each store encodes those in its own way, or not at all.
"""

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

BUCKET = "isptickets"
KEY = "automations/inc/changes/2026-06-25 14:20:00+03:00.csv"


def body(name: str, bucket: str = BUCKET, key: str = KEY) -> bytes:
    """The body of the file `name`.json; for another bucket or key, as the same store would send it."""
    text = Path(__file__).with_name(f"{name}.json").read_text()
    if (bucket, key) == (BUCKET, KEY):
        return text.encode()
    return json.dumps(_about(json.loads(text), bucket, key)).encode()


def _about(value: Any, bucket: str, key: str) -> Any:
    match value:
        case dict():
            return {name: _about(inner, bucket, key) for name, inner in value.items()}
        case list():
            return [_about(inner, bucket, key) for inner in value]
        case str() if value.startswith("{"):  # SNS carries the event as text
            return json.dumps(_about(json.loads(value), bucket, key))
        case str():
            about = {KEY: key, quote_plus(KEY): quote_plus(key), quote_plus(KEY, "/"): quote_plus(key, "/")}
            for form, instead in about.items():
                value = value.replace(form, instead)
            return value.replace(BUCKET, bucket)
        case _:
            return value
