"""A declaration guessed from a sample: whatever the header, it is one that is taken, and its SQL quotes each name."""

import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.feeds.declared import parse_feed
from consumer.feeds.feed import MAX_TYPED_COLUMNS, Feed, Form
from consumer.files.guessing import guessed_declaration, tried
from consumer.postgres.feed_tables import as_text
from publisher.errors import Misconfigured, Permanent
from tests.stage import city
from tests.stage.feeds import lines


def text_of(content: bytes, id_column: str | None = None) -> str:
    return guessed_declaration("sample", "automations/sample/", id_column, "sample.csv", io.BytesIO(content))


def guessed(content: bytes, id_column: str | None = None) -> Feed:
    return parse_feed("sample.toml", text_of(content, id_column))


def form_of(*values: str) -> tuple[Form, str]:
    """Of a column with these values, and what the guess goes by."""
    text = text_of(lines([["id", "it"], *([f"T{number}", value] for number, value in enumerate(values))]))
    (line,) = [line for line in text.splitlines() if line.startswith("it = ")]
    return parse_feed("sample.toml", text).columns["it"].form, line.partition("  # ")[2]


@pytest.mark.parametrize(
    ("values", "form"),
    [
        (["2026-06-25 14:20", "2026-06-25T14:20:00.000Z", ""], Form.TIMESTAMP),
        (["true", "F", ""], Form.BOOLEAN),
        (["1", "2.5", "-3"], Form.NUMBER),
        (["00100", "10001"], Form.TEXT),
        (["+254700000001", "+254700000002"], Form.TEXT),
        (["open", "closed"], Form.TEXT),
        (["1", "0", "1"], Form.ANY),
        (["", ""], Form.ANY),
        (["x" * 1001, "x"], Form.ANY),
        (["ü" * 500, "x"], Form.TEXT),
        (["01/31/2024 10:05:00 AM", "1/2/2024"], Form.ANY),
        (["5"] * 19 + ["five"], Form.ANY),
        (["5"] * 3 + ["five"], Form.TEXT),
        (["5"] * 3 + ["N/A", "NULL"], Form.NUMBER),
    ],
)
def test_a_form_is_what_all_values_are_of(values: list[str], form: Form) -> None:
    assert form_of(*values)[0] is form


def test_each_guess_says_what_it_goes_by() -> None:
    assert form_of("2026-06-25", "")[1] == "50% of the rows have a value, all of them timestamps"
    assert "dates such as '01/31/2024 10:05:00 AM', which are not read" in form_of("01/31/2024 10:05:00 AM", "")[1]
    assert "95% of them numbers, others such as 'five'" in form_of(*["5"] * 19, "five")[1]


def test_a_value_in_a_comment_stays_in_its_line() -> None:
    assert parse_feed("sample.toml", text_of(lines([["id", "a"], *[["T", "5"]] * 19, ["T", 'x\nname = "y"']])))


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        ([["when", "id"], ["2026-06-25", "A"], ["2026-06-26", "B"]], "id"),
        ([["name", "Unique Key"], ["a", "1"], ["b", "2"]], "Unique Key"),
        ([["id", "serial"], ["1", "A"], ["1", "B"]], "serial"),
        ([["note", "ticket_id"], ["x", "A"], ["x", "A"], ["y", "B"]], "ticket_id"),
        ([["note", "order no"]], "order no"),
    ],
)
def test_the_id_is_the_column_that_tells_rows_apart(rows: list[list[str]], found: str) -> None:
    assert guessed(lines(rows)).id == found


def test_the_operator_can_say_which_is_the_id() -> None:
    assert guessed(b"id,other\n1,2\n", "other").id == "other"
    with pytest.raises(Permanent, match="the header has no such column"):
        guessed(b"id,other\n1,2\n", "third")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "no header: the file is empty"),
        (b"id,n\xe9\n", "not UTF-8"),
        (b"a,b\n1,2,3\n2,3,4\n", "not CSV: no row has the header's 2 fields"),
        (b"PK\x03\x04", "not CSV: this looks like a zip archive or an Excel workbook"),
        ("\u00a0,\u00a0\n1,2\n".encode(), "no header: no column has a name"),
        (b'a,"b\n', "no header: line 1: opens a quote that never closes"),
        (b"a\0,b\n", "no header: a NUL byte"),
        (",".join(f"c{number}" for number in range(2001)).encode(), "too many columns"),
    ],
)
def test_what_is_no_change_file_is_told(content: bytes, told: str) -> None:
    with pytest.raises(Permanent, match=re.escape(told)):
        text_of(content)


def test_names_that_would_be_one_in_the_table_are_told_apart() -> None:
    feed = guessed(b"\xef\xbb\xbfkey,A b,a+b,ticket_id,xmin,raw\nK1,x,x,x,x,x\nK2,x,x,x,x,x\n", "key")
    assert list(feed.typed_columns) == ["a_b", "a_b_2", "ticket_id_2", "xmin_2", "raw_2"]


def test_columns_that_are_one_to_whoever_reads_a_header_stay_undeclared() -> None:
    assert list(guessed(b"id,A b,a-b,note\n1,x,x,x\n").columns) == ["id", "note"]


def test_what_a_file_of_the_sample_has_is_what_each_has_to_have() -> None:
    feed = guessed(b"id,owner,latitude,longitude,empty\nT1,x,1.5,36.5,\n")
    assert feed.always == ("owner",)


@pytest.mark.parametrize("mark", [";", "\t", "|"])
def test_a_sample_may_have_its_columns_parted_otherwise(mark: str) -> None:
    assert list(guessed(f"id{mark}owner\nT1{mark}x\n".encode()).columns) == ["id", "owner"]


def test_a_wide_file_has_as_many_typed_columns_as_a_row_has_room_for() -> None:
    names = [f"c{number}" for number in range(2000)]
    feed = guessed(lines([["id", *names[1:]], ["T", *["x"] * 1999]]))
    assert len(feed.typed_columns) == MAX_TYPED_COLUMNS
    many = "".join(f"c{number} = 'text'\n" for number in range(MAX_TYPED_COLUMNS + 1))
    with pytest.raises(Misconfigured, match=r"^wide.toml: columns: 301 are typed, more than 300"):
        parse_feed("wide.toml", f"name='wide'\nprefix='wide/'\nid='id'\n[columns]\nid='text'\n{many}")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name = 'closure_events'\n", "name: tickets.closure_events has another use"),
        ("name = 'Bad-Name'\n", "name: String should match"),
        ("name = 'x'\ncolumns.' y' = 'text'\n", "columns: no column of a header is called ' y'"),
        ("name = 'x'\ncolumns.xmin = 'text'\n", "every table has a column 'xmin' of its own"),
        ("name = 'x'\ncolumns.y = 'words'\n", "columns.y.form: Input should be"),
        ("name = 'x'\nfrom = 'y'\n", "from: Extra inputs are not permitted"),
        ("name = ", "Invalid value"),
    ],
)
def test_a_wrong_declaration_is_one_line_with_file_and_field(text: str, told: str) -> None:
    declaration = f"prefix = 'x/'\nid = 'id'\ncolumns.id = 'text'\n{text}"
    with pytest.raises(Misconfigured, match=re.escape(told)) as caught:
        parse_feed("x.toml", declaration)
    assert str(caught.value).startswith("x.toml: ")
    assert "\n" not in str(caught.value)


HOSTILE = ("raw", "ctid", "select", 'q"t', "';--", "{}", "{tickets}", "%s", "%(x)s", "\\", "A b", "a-b")
names = st.one_of(
    st.text(st.characters(codec="utf-8"), max_size=80),
    st.sampled_from(["ticket_id", *HOSTILE]),
)
values = st.one_of(st.text(st.characters(codec="utf-8"), max_size=20), st.sampled_from(["1", "true", "2026-06-25", ""]))


@given(st.data())
def test_whatever_the_header_the_guess_is_a_declaration_and_its_sql_quotes_each_name(data: st.DataObject) -> None:
    header = data.draw(st.lists(names, min_size=1, max_size=8))
    rows = data.draw(st.lists(st.lists(values, min_size=len(header), max_size=len(header)), max_size=4))
    content = lines([header, *rows])
    try:
        feed = guessed(content)
    except Permanent:
        return
    trial = tried(feed, io.BytesIO(content).read, max_reject_share=1.0, allows_missing=False)
    assert trial.rows == trial.accepted + trial.rejected.total() + trial.dropped.total()
    # What is left of a statement without what it quotes is the program's own: names and values cannot be seen in it.
    for statement in as_text(feed):
        begun = re.sub(r"\A-- .*\n", "", statement)
        own = re.sub(r"""E?'(?:[^'\\]|''|\\\\)*'|"(?:[^"]|"")*\"""", "", begun)
        assert re.fullmatch(r"[A-Za-z0-9_ \n(),.;>:=?-]*", own), own


def test_a_city_s_service_requests_are_guessed_and_accepted() -> None:
    content = city.csv(city.requests(200))
    feed = guessed(content)
    assert (feed.id, len(feed.columns)) == ("Unique Key", 40)
    assert {name: feed.columns[name].form.value for name in ("Created Date", "Incident Zip", "BBL", "Due Date")} == {
        "Created Date": "timestamp",
        "Incident Zip": "text",
        "BBL": "number",
        "Due Date": "any",
    }
    assert feed.columns["Resolution Action Updated Date"].form is Form.ANY
    trial = tried(feed, io.BytesIO(content).read, max_reject_share=1.0, allows_missing=False)
    assert (trial.accepted, trial.tickets, trial.rejected.total()) == (200, 200, 0)
