"""What the bench makes of its figures, and what its counters count: without any service, and without a clock."""

import re
import socket
import struct
import threading
from pathlib import Path

import pytest

from tests.bench import page, plot
from tests.bench.exported import COLUMNS, Feed, changed
from tests.bench.figures import Bar, Figure, Found, percentile
from tests.bench.plain import MAKE_STAGING
from tests.doubles.counting_postgres import CountingPostgres

FOUND = Found(
    [Figure("psql ÷ consumer", "2 s", "1 s", [0.4, 0.5, 0.9]), Figure("dlt ÷ consumer", "2 s", "not measured: gone")],
    [Bar("1 file/s", {"published → got": 2.0, "GET": 3.5})],
)


def test_a_percentile_is_a_value_that_was_taken() -> None:
    assert percentile([3, 1, 2], 0.5) == 2
    assert percentile(range(1, 101), 0.99) == 99
    assert percentile([7], 0.99) == 7


def test_a_row_has_the_median_ratio_and_how_far_the_rounds_are_apart() -> None:
    rows = page.table(FOUND).splitlines()
    assert rows[2] == "| psql ÷ consumer | 2 s | 1 s | 0.50 | 0.40 to 0.90 |"
    assert rows[3] == "| dlt ÷ consumer | 2 s | not measured: gone | - | - |"


def test_a_run_writes_between_the_markers_alone(tmp_path: Path) -> None:
    file = tmp_path / "performance.md"
    file.write_text(f"before\n{page.BEGIN}of the last run\n{page.END}after\n")
    for _ in range(2):
        page.write(file, FOUND, [("machine", "any")], "method")
    text = file.read_text()
    assert text.startswith(f"before\n{page.BEGIN}\n- machine: any\n")
    assert text.endswith(f"{page.END}after\n")
    assert "of the last run" not in text
    assert text.count(page.table(FOUND)) == 1
    assert "| 1 file/s | published → got 2.0, GET 3.5 |\n" in text
    assert (tmp_path / "performance-latency.svg").exists()


def test_a_page_without_markers_is_not_written(tmp_path: Path) -> None:
    file = tmp_path / "performance.md"
    file.write_text("by hand\n")
    with pytest.raises(ValueError, match="no place"):
        page.write(file, FOUND, [], "method")
    assert file.read_text() == "by hand\n"


def test_bars_are_as_long_as_their_stages() -> None:
    widths = [float(width) for width in re.findall(r'<rect x=.* width="([\d.]+)"', plot.bars(FOUND.bars))]
    assert widths[1] / widths[0] == pytest.approx(3.5 / 2.0, rel=0.01)


def test_the_demos_feed_has_a_ticket_a_row_and_all_of_them_change() -> None:
    rows = Feed(None).tickets(200)
    assert len({row["ticket_id"] for row in rows}) == 200
    assert all(one != other for one, other in zip(rows, changed(rows), strict=True))
    assert {row["is_alarm"] for row in rows} <= {"false", "False", "f", "0"}


def test_the_plain_staging_has_the_columns_of_a_file() -> None:
    assert tuple(line.split()[0] for line in MAKE_STAGING.decode().splitlines() if line.startswith("    ")) == COLUMNS


def test_statements_and_round_trips_are_counted_however_they_are_cut() -> None:
    answers = b"".join(
        kind + struct.pack(">I", 4 + len(body)) + body
        for kind, body in (
            (b"C", b"BEGIN\0"), (b"Z", b"T"), (b"G", b"\0\0\0"), (b"C", b"COPY 59\0"), (b"Z", b"T"),
            (b"D", b"C" * 300), (b"C", b"INSERT 0 59\0"), (b"Z", b"T"), (b"C", b"COMMIT\0"), (b"Z", b"I"),
        )
    )  # fmt: skip
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                for at in range(0, len(answers), 7):
                    connection.sendall(answers[at : at + 7])

        threading.Thread(target=answer, daemon=True).start()
        with CountingPostgres(f"postgresql://127.0.0.1:{server.getsockname()[1]}/any") as database:
            port = int(database.url.partition("?")[0].rpartition(":")[2].partition("/")[0])
            with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
                client.settimeout(10)
                received = b""
                while len(received) < len(answers):
                    received += client.recv(4096)
    assert received == answers
    assert database.statements == {"BEGIN": 1, "COPY": 1, "INSERT": 1, "COMMIT": 1}
    assert database.round_trips == 5
