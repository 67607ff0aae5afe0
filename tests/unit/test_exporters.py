"""Files in the shapes that well-known programs export, made up and small: what each means, and nothing else."""

import gzip
import io
import json

from consumer.feeds.declared import packaged_feeds
from consumer.files.cleaning import Dropped, RowReject, TicketRow
from consumer.files.rows import Rows

INC = packaged_feeds().named("inc")


def read(content: str | bytes) -> tuple[dict[str, dict[str, str]], list[RowReject], Rows]:
    """Tickets by their ids, with what `raw` has of them; the rejects; and what is told of the file."""
    body = content.encode() if isinstance(content, str) else content
    rows = Rows(io.BytesIO(body).read, INC, max_reject_share=1, allows_missing=True)
    tickets, rejects = {}, []
    for row in rows:
        match row:
            case TicketRow(_, ticket_id, raw, _):
                found = json.loads(raw)
                tickets[ticket_id] = {name: found[name] for name in found if name != "ticket_id" and found[name]}
            case RowReject():
                rejects.append(row)
            case Dropped():
                pass
    return tickets, rejects, rows


def test_excel_with_semicolons_its_own_first_line_and_ids_kept_as_text() -> None:
    tickets, rejects, rows = read(
        "\ufeffsep=;\r\n"
        "Ticket ID;Raw Status;Location Name;Owner;;\r\n"
        '="00118001";New;"Quarry Road; Kariokor";Amina;;\r\n'
        "'00118002;New;Gate\u00a0B;#N/A;;\r\n"
        "1,18E+05;New;Gate B;Dina;;\r\n"
        ";;;;;\r\n"
    )
    assert tickets == {
        "00118001": {"raw_status": "NEW", "location_name": "Quarry Road; Kariokor", "owner": "Amina"},
        "00118002": {"raw_status": "NEW", "location_name": "Gate B"},
    }
    assert [reject.line for reject in rejects] == [5]
    assert "a spreadsheet rewrote" in rejects[0].reason
    assert rows.notes.renamed == {
        "ticket_id": "Ticket ID", "raw_status": "Raw Status", "location_name": "Location Name", "owner": "Owner",
    }  # fmt: skip


def test_jira_with_columns_of_one_name_and_descriptions_of_many_lines() -> None:
    description = 'Steps:\n1, open the box\n2, "reset" it\n\nNOC-7, see there'
    quoted = '"' + description.replace('"', '""') + '"'
    tickets, rejects, rows = read(
        "ticket_id,raw_status,Comment,Comment,Comment,description\n"
        f'NOC-1,To Do,"01/Jun/26 9:12;amina;first",second,,{quoted}\n'
        "NOC-2,Done,,,,\n"
    )
    assert tickets == {
        "NOC-1": {
            "raw_status": "TO DO", "Comment": "01/Jun/26 9:12;amina;first", "Comment_2": "second",
            "description": description,
        },
        "NOC-2": {"raw_status": "DONE"},
    }  # fmt: skip
    assert rejects == []
    assert rows.notes.undeclared == ("Comment", "Comment_2", "Comment_3", "description")


def test_servicenow_with_every_field_in_quotes() -> None:
    tickets, rejects, _ = read(
        '"ticket_id","raw_status","owner","closed_at"\r\n'
        '"INC0010023","Resolved","O\'Brien, Pat","2026-06-25 14:20:00"\r\n'
        '"INC0010024","Work in ""Progress""","",""\r\n'
    )
    assert tickets == {
        "INC0010023": {"raw_status": "RESOLVED", "owner": "O'Brien, Pat", "closed_at": "2026-06-25 14:20:00"},
        "INC0010024": {"raw_status": 'WORK IN "PROGRESS"'},
    }
    assert rejects == []


def test_pandas_with_an_index_without_a_name_nan_and_ids_that_became_floats() -> None:
    tickets, rejects, _ = read(
        ",ticket_id,mttr,cluster,is_actionable\n0,INC-1,90.5,nan,True\n1,INC-2,nan,QOA,False\n2,70412.0,1.0,QOA,\n"
    )
    assert tickets == {
        "INC-1": {"column_1": "0", "mttr": "90.5", "is_actionable": "True"},
        "INC-2": {"column_1": "1", "cluster": "QOA", "is_actionable": "False"},
    }
    assert [reject.line for reject in rejects] == [4]


def test_dotnet_with_its_least_date_in_utf_16() -> None:
    text = "ticket_id,closed_at,created_at_service\r\nINC-1,0001-01-01T00:00:00,2026-06-25T14:20:00.1234567+03:00\r\n"
    tickets, rejects, rows = read(text.encode("utf-16"))
    assert tickets == {
        "INC-1": {"closed_at": "0001-01-01T00:00:00", "created_at_service": "2026-06-25T14:20:00.1234567+03:00"}
    }
    assert (rejects, rows.never) == ([], 1)


def test_sql_dumps_with_backslash_n_and_tabs() -> None:
    tickets, rejects, _ = read(
        "ticket_id\tcluster\tclosed_at\tmttr\nINC-1\tQOA\t\\N\t\\N\nINC-2\tNULL\t0000-00-00\t5\n"
    )
    assert tickets == {"INC-1": {"cluster": "QOA"}, "INC-2": {"closed_at": "0000-00-00", "mttr": "5"}}
    assert rejects == []


def test_exports_put_one_behind_the_other_by_cat() -> None:
    first = "ticket_id,owner,raw_status\nINC-1,Amina,New\n"
    second = "\ufeffraw_status,ticket_id\nClosed,INC-2\n"
    packed = gzip.compress(first.encode()) + gzip.compress(second.encode())
    for content in (first + second, packed):
        tickets, rejects, rows = read(content)
        assert tickets == {"INC-1": {"owner": "Amina", "raw_status": "NEW"}, "INC-2": {"raw_status": "CLOSED"}}
        assert (rejects, rows.lines.header) == ([], 2)


def test_an_export_of_a_program_that_died() -> None:
    tickets, rejects, rows = read("ticket_id,owner,raw_status\nINC-1,Amina,New\nINC-2,Di")
    assert tickets == {"INC-1": {"owner": "Amina", "raw_status": "NEW"}}
    assert [(reject.line, reject.ticket_id) for reject in rejects] == [(3, "INC-2")]
    assert (rows.lines.read, rows.lines.rejected, rows.lines.rows) == (3, 1, 1)
