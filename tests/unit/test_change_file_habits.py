"""What exporters, spreadsheets and people do to a change file, and what each has to become."""

import gzip
import io
import json
from datetime import UTC, datetime

import pytest

from consumer.feeds.declared import packaged_feeds
from consumer.files.cleaning import Dropped, RowReject, TicketRow
from consumer.files.rows import Rows
from publisher.errors import Permanent

INC = packaged_feeds().named("inc")
NARROW = "ticket_id,raw_status,location_name,owner\n"


class Read:
    """What came of a file."""

    def __init__(self, content: str | bytes, *, allows_missing: bool = True, max_reject_share: float = 1.0) -> None:
        given = content.encode() if isinstance(content, str) else content
        self.rows = Rows(io.BytesIO(given).read, INC, max_reject_share=max_reject_share, allows_missing=allows_missing)
        judged = list(self.rows)
        self.tickets = [row for row in judged if isinstance(row, TicketRow)]
        self.rejects = [row for row in judged if isinstance(row, RowReject)]
        self.dropped = [row for row in judged if isinstance(row, Dropped)]
        lines = self.rows.lines
        assert lines.read == lines.blank + lines.header + lines.rejected + lines.rows

    @property
    def ids(self) -> list[str]:
        return [row.ticket_id for row in self.tickets]

    @property
    def values(self) -> list[dict[str, str]]:
        return [{key: value for key, value in json.loads(row.raw).items() if value is not None} for row in self.tickets]

    @property
    def rejected_lines(self) -> list[int]:
        return [line for reject in self.rejects for line in range(reject.line, reject.line + reject.lines)]


def refusal(content: str | bytes, *, allows_missing: bool = True, max_reject_share: float = 1.0) -> Permanent:
    with pytest.raises(Permanent) as raised:
        Read(content, allows_missing=allows_missing, max_reject_share=max_reject_share)
    return raised.value


# Quotes that are astray.


def test_a_quote_that_closes_on_a_later_row_costs_its_own_row_alone() -> None:
    read = Read(NARROW + 'E11-1,New,"6 inch duct,Amina\nE11-2,New,Karen 6",Dina\nE11-3,New,x,y\n')
    assert read.rejected_lines == [2]
    assert read.values[0] == {"ticket_id": "E11-2", "raw_status": "NEW", "location_name": 'Karen 6"', "owner": "Dina"}
    assert read.ids == ["E11-2", "E11-3"]


def test_rows_between_two_quotes_astray_are_all_there() -> None:
    rows = [f"E11-{number},New,x,y\n" for number in range(2, 2000)]
    read = Read(NARROW + 'E11-1,New,"6 inch,Amina\n' + "".join(rows) + 'E11-2000,New,Karen 6",Dina\n')
    assert read.rejected_lines == [2]
    assert len(read.tickets) == 1999


def test_a_quote_that_never_closes_costs_its_own_row_alone() -> None:
    read = Read(NARROW + 'E11-1,New,"6 inch,Amina\nE11-2,New,x,y\n')
    assert (read.ids, read.rejected_lines) == (["E11-2"], [2])


@pytest.mark.parametrize("text", [
    "line one\nline two",
    'said ""no"", twice;\nand left,\n\nthen came back',
    "a, b, c\nd, e, f",
    "begins\r\nand ends",
    "a, and ends in a line break\n",
    "there is no\nticket_id",
    "see\nE11-2, it is the same",
    "see below, please\nE11-2, it is the same",
])  # fmt: skip
def test_a_text_of_several_lines_stays_whole(text: str) -> None:
    read = Read(NARROW + f'E11-1,New,x,"{text}"\nE11-2,New,x,y\n')
    assert read.ids == ["E11-1", "E11-2"]
    assert read.values[0]["owner"] == text.replace('""', '"').strip()
    assert read.rejects == []


def test_a_text_of_several_lines_before_the_id_stays_whole() -> None:
    read = Read('owner,ticket_id,raw_status\n"line one\nline two",E11-1,New\nx,E11-2,New\n')
    assert read.values[0] == {"owner": "line one\nline two", "ticket_id": "E11-1", "raw_status": "NEW"}
    assert (read.ids, read.rejects) == (["E11-1", "E11-2"], [])


def test_a_text_of_several_lines_stays_whole_where_the_last_columns_are_left_out() -> None:
    read = Read(NARROW + 'E11-1,New,"Karen,\nbehind the gate"\nE11-2,New,x,y\n')
    assert read.values[0]["location_name"] == "Karen, behind the gate"
    assert (read.ids, read.rejects) == (["E11-1", "E11-2"], [])


def test_a_text_with_as_many_commas_as_a_row_stays_whole_where_the_last_columns_are_left_out() -> None:
    read = Read('ticket_id,owner,raw_status,mttr,cluster\nE11-1,"one\ntwo, three, four",New,5\nE11-2,x,New,5\n')
    assert (read.ids, read.rejects) == (["E11-1", "E11-2"], [])


def test_a_text_of_several_lines_before_the_id_stays_whole_where_the_last_columns_are_left_out() -> None:
    read = Read('owner,location_name,ticket_id,raw_status\nx,y,E11-1\n"line one\nline two",y,E11-2\nx,y,E11-3,New\n')
    assert (read.ids, read.rejects) == (["E11-1", "E11-2", "E11-3"], [])


def test_ids_of_mixed_letters_and_digits_are_known_again_behind_a_quote_astray() -> None:
    ids = ["c5072a2a-677e-4a8c-b0a9-f51e1ee9b9c6", "b876b49b-b147-4ecc-b809-fa17a44f22e7",
           "378e1fcf-7a9d-48f3-aa41-fa869afa2232"]  # fmt: skip
    read = Read(NARROW + f'{ids[0]},New,x,y\n"{ids[1]},New,x,y\n{ids[2]},New,x,y\n')
    assert (read.ids, read.rejected_lines) == ([ids[0], ids[2]], [3])


def test_a_row_whose_id_is_of_a_new_form_is_not_swallowed() -> None:
    read = Read(NARROW + 'E11-1,New,x,y\nE11-2,New,"6 inch,Amina\n70412,New,Karen 6",Dina\n')
    assert (read.ids, read.rejected_lines) == (["E11-1", "70412"], [3])


def test_two_quotes_astray_never_make_one_ticket_of_two_rows() -> None:
    read = Read(NARROW + 'E11-1,New,"x,y\nE11-2,New,"x,y\nE11-3,New,x,y\n')
    assert (read.ids, read.rejected_lines) == (["E11-3"], [2, 3])
    both_doubled = 'E14-1,,,"a"", ""b"",Zoe\nE14-2,x,y,""c\n\nd"\n'
    read = Read(NARROW + both_doubled)
    assert read.ids == []
    assert {2, 3} <= set(read.rejected_lines)


def test_a_quote_astray_in_a_text_before_the_id_makes_no_ticket_of_the_rest() -> None:
    read = Read("owner,location_name,ticket_id,raw_status\n"
                ',"tkt no. 1 gate 4,\nkata ya waya,"\ngate 4",INC-1,New\nx,y,INC-2,New\n')  # fmt: skip
    assert (read.ids, read.rejected_lines) == (["INC-2"], [2, 3, 4])


def test_a_quote_astray_at_the_end_of_a_row_takes_no_part_of_the_next_one() -> None:
    read = Read('ticket_id,mttr,closed_at,raw_status,location_name,owner\nINC-1,90,2026-06-25 08:00:00,New,x,"\n'
                'INC-2,90,2026-06-25"\n08:00:00,New,x,x\nINC-3,90,,New,x,x\n')  # fmt: skip
    assert (read.ids, read.rejected_lines) == (["INC-3"], [2, 3, 4])


def test_two_quotes_astray_make_no_id_of_a_row() -> None:
    read = Read('ticket_id,owner,raw_status,location_name\n"INC-1,,New,x\n",x,In Progress,x\nINC-2,x,New,y\n')
    assert (read.ids, read.rejected_lines) == (["INC-2"], [2, 3])


def test_two_quotes_astray_never_make_values_of_columns_without_a_name() -> None:
    read = Read("location_name,ticket_id,raw_status,owner,,\nx,INC-1,New,y,,\n"
                'x,INC-2,New,"x,,\nx,,New,x,,x\n",1.23E+11,New,,,\nx,INC-3,New,y,,\n')  # fmt: skip
    assert (read.ids, read.rejected_lines) == (["INC-1", "INC-3"], [3, 4, 5])


def test_a_quote_astray_and_one_on_an_empty_line_make_no_text_of_the_row() -> None:
    read = Read(NARROW + 'E11-1,"Pending,x,y\n"\nE11-2,New,x,y\n')
    assert (read.ids, 2 in read.rejected_lines) == (["E11-2"], True)


@pytest.mark.parametrize("written", ['E11"-1', 'E11-1"'])
def test_an_id_with_a_quote_in_it_is_no_id(written: str) -> None:
    read = Read(NARROW + f"{written},New,x,y\n")
    assert read.ids == []
    assert "has a quote in it" in read.rejects[0].reason


def test_a_line_break_in_a_text_without_quotes_is_told_and_invents_nothing() -> None:
    read = Read(NARROW + "E11-1,Pending\n- Customer,x,y\nE11-2,New,x,y\n")
    assert (read.ids, read.rejected_lines) == (["E11-2"], [2, 3])


def test_a_line_break_that_leaves_a_time_where_the_id_belongs_invents_nothing() -> None:
    read = Read("ticket_id,raw_status,owner,closed_at,mttr\nE11-1,New,x,2026-06-25\n08:00:00,90\n")
    assert (read.ids, read.rejected_lines) == ([], [2, 3])


def test_a_line_break_before_the_id_is_told() -> None:
    read = Read("raw_status,owner,ticket_id\nIn\nProgress,x,E11-1\nNew,x,E11-2\n")
    assert (read.ids, read.rejected_lines) == (["E11-2"], [2, 3])


def test_two_quotes_astray_and_a_new_form_of_ids_cost_the_two_rows_alone() -> None:
    names = "ticket_id,raw_status,owner,cluster,region,department\n"
    read = Read(names + '48012,"Assigned,a\nINC-048013,New,x,y,z,""text"\nINC-048014,New,x\n')
    assert (read.ids, read.rejected_lines) == (["INC-048014"], [2, 3])


def test_a_quote_astray_early_in_the_next_row_never_makes_one_ticket_of_both() -> None:
    names = "ticket_id,owner,department,mttr,raw_status,location_name,cluster\n"
    read = Read(names + 'E11-1,a,,,"New,x,y\nE11-2,b,""c\nd""e",-1,Closed\nE11-3,a,,,New,x,y\n')
    assert (read.ids, read.rejected_lines) == (["E11-3"], [2, 3, 4])


def test_a_quote_astray_before_a_header_makes_no_text_of_it() -> None:
    header = "owner,ticket_id,raw_status\n"
    read = Read(header + f'Amina,E11-1,New\n"{header}Dina",E11-2,New\nZoe,E11-3,New\n')
    assert (read.ids, read.rejected_lines) == (["E11-1", "E11-3"], [3, 4])


@pytest.mark.parametrize("rest", ["Progress,,E11-1", "Progress,,E11-1,Amina", "Progress,,E11-1,Amina,"])
@pytest.mark.parametrize("before", ["", "Closed,x\n", '"Closed,x\n'])
def test_the_rest_of_a_broken_text_before_the_id_is_no_row(before: str, rest: str) -> None:
    names = "raw_status,location_name,ticket_id,owner,cluster\n"
    read = Read(f"{names}New,x,E11-0,y,z\n{before}In\n{rest}\nNew,x,E11-2,Dina,z\n")
    assert read.ids == ["E11-0", "E11-2"]


def test_a_row_behind_a_line_break_before_the_id_may_have_a_text_of_several_lines() -> None:
    names = "owner,location_name,closed_at,cluster,ticket_id,raw_status\n"
    broken = "x,,2026-06-30\n21:32:00,y,INC-1,New\n"
    read = Read(names + "x,,,y,INC-0,New\n" + broken + ',"one\ntwo",2026-06-30,y,INC-2,New\n')
    assert (read.ids, read.rejected_lines) == (["INC-0", "INC-2"], [3, 4])


def test_behind_a_text_with_a_quote_astray_the_end_of_it_is_no_row() -> None:
    names = "owner,location_name,closed_at,cluster,ticket_id,raw_status\n"
    read = Read(names + '"one, two\nthree, four\n"five",,,y,INC-1,New\nx,,,y,INC-2,New\n')
    assert (read.ids, read.rejected_lines) == (["INC-2"], [2, 3, 4])


@pytest.mark.parametrize(
    "spoilt", ['"I\n"NC-48012"', '"INC-4\n"8012"', '"INC-0\n"48012"', '"I"NC-4\n"8012"', "INC-4\n8012"]
)
@pytest.mark.parametrize("before", ["", "INC-48011,New,x,y\n"])
def test_the_rest_of_an_id_with_a_line_break_is_no_id(before: str, spoilt: str) -> None:
    read = Read(f"{NARROW}{before}{spoilt},New,x,y\nINC-48013,New,x,y\n")
    assert [*read.ids, len(read.rejected_lines)] == ([*["INC-48011"][: bool(before)], "INC-48013", 2])


@pytest.mark.parametrize("rest", ["Njoroge", '"Njoroge', "no5"])
def test_an_id_behind_a_word_that_stands_alone_is_none_of_its_end(rest: str) -> None:
    read = Read(f"{NARROW}INC-48012,New,x,Mwangi\n{rest}\nINC-48013,New,x,y\nINC-48014,New,x,y\n")
    assert read.ids[-2:] == ["INC-48013", "INC-48014"]


@pytest.mark.parametrize("before", ["NULL,New,x,2026-06-25\n08:00:00\n", '"INC-48012,Pending\n- Customer,x,"a\nok"\n'])
def test_the_end_of_a_broken_row_is_no_beginning_of_an_id(before: str) -> None:
    assert Read(f"{NARROW}{before}INC-48013,New,x,y\n").ids == ["INC-48013"]


LATE_ID = "raw_status,location_name,owner,ticket_id,closed_at,mttr\n"
SHORT = "ticket_id,raw_status,location_name,owner,mttr,cluster\n"


@pytest.mark.parametrize("before", [
    "Zoë\nno. 1,,x,INC-1,,New\n",  # a whole row
    '"raw_status,location_name,owner,ticket_id,closed_at,mttr\n',
    '"New,x,y,INC-1,,90\n',
    "Pending - Customer,Thika\nRd,x,INC-1,,0\n",
])  # fmt: skip
@pytest.mark.parametrize("broken", ['"Pending', 'P"ending', '"Pending - Customer,Karen,"no', 'Closed,K"aren,no'])
def test_behind_a_quote_astray_the_rest_of_a_broken_row_is_no_row_whatever_came_before(
    before: str, broken: str
) -> None:
    rest = "- Customer,x,y,INC-2,,90" if "," not in broken else "5,INC-2,2026-06-30T21:33:07+03:00,90"
    read = Read(f"{LATE_ID}{before}{broken}\n{rest}\nNew,x,y,INC-3,,90\n")
    assert set(read.ids) <= {"INC-1", "INC-3"}


def test_behind_a_row_with_quotes_that_breaks_before_its_id_a_row_is_one() -> None:
    names = "location_name,owner,closed_at,mttr,ticket_id,raw_status\n"
    broken = 'x,"a ""b"" c",2026-06-30\n21:32:00,90,INC-1,New\n'
    read = Read(names + broken + 'x,"two\nlines",2026-06-30,90,INC-2,New\n')
    assert (read.ids, read.rejected_lines) == (["INC-2"], [2, 3])


@pytest.mark.parametrize(("before", "row"), [
    ('""=""INC-1""",New,x,y,90,z\n', "'INC-2,New\n"),
    ('"INC-0\n4001","New,,,,x\n', "INC-04002,New,x\n"),
    ('"2026/0\n6/48012",New,,,,x\n', "2026/06/48013,New,x\n"),
    ('",,,,,\n', "INC-2,New\n"),
])  # fmt: skip
def test_behind_a_broken_row_that_came_first_one_whose_last_columns_are_left_out_is_a_row(
    before: str, row: str
) -> None:
    assert Read(SHORT + before + row).ids == [row.split(",", maxsplit=1)[0].lstrip("'")]


def test_rows_whose_last_columns_are_left_out_may_have_ids_of_two_forms() -> None:
    read = Read(SHORT + 'INC-48012,New,x,y,90\n48013,New,"a ""b"",\ntwo lines",y\n')
    assert (read.ids, read.rejects) == (["INC-48012", "48013"], [])


def test_a_row_of_several_lines_that_is_too_short_is_not_gone_on_with() -> None:
    names = "mttr,raw_status,department,owner,ticket_id,cluster,location_name\n"
    row = '5,New,x,"a,\nb",INC-3,"c\nd",x\n'
    read = Read(names + '"0,Closed,x,Kwa\nNg,INC-1,,\n5,New,x,"a,\nb",INC-2,"c\nd"\n' + row)
    assert read.ids[-1:] == ["INC-3"]


@pytest.mark.parametrize("broken", [
    'Closed,Wanjik\n"u,a,INC-1,,90\n', 'Closed,x,a,INC-1,2026-06-25\n08:00:00,"\n', 'New,Mwangi\nwa,x",INC-1,,90\n',
])  # fmt: skip
def test_a_line_that_makes_a_row_with_the_one_before_it_does_not_go_on(broken: str) -> None:
    read = Read(LATE_ID + "New,x,y,INC-0,,90\n" + broken + "New,x,y,INC-2,,90\n")
    assert (read.ids, read.rejected_lines) == (["INC-0", "INC-2"], [3, 4])


def test_two_quotes_astray_never_make_a_text_of_a_row_with_a_text_of_several_lines() -> None:
    names = "ticket_id,raw_status,location_name,owner,department,closed_at,mttr,,,\n"
    rows = 'INC-1,"New,x,,,,90\n48013,New,x,y,""one\ntwo, three",2026-06-30,90,,,\n'
    read = Read(names + rows + "INC-3,New,x,y,,,90,,,\n")
    assert (read.ids, {2, 3} <= set(read.rejected_lines)) == (["INC-3"], True)


def test_two_quotes_astray_never_make_a_text_of_a_row_without_an_id() -> None:
    names = "raw_status,location_name,ticket_id,owner,cluster,mttr\n"
    read = Read(names + 'New,x,INC-0,y,,90\nAssigned,",,,z,0\nNew,Thika",INC-1,,,\nNew,x,INC-2,y,,90\n')
    assert (read.ids, read.rejected_lines) == (["INC-0", "INC-2"], [3, 4])


def test_two_quotes_astray_never_make_a_text_of_a_broken_row_whose_id_is_spoilt() -> None:
    read = Read(SHORT + 'INC-1,"New,x,y,90,z\n70412.0,New,x,tkt\nno. 2,"\n' + "INC-3,New,x,y,90,z\n")
    assert (read.ids, read.rejected_lines) == (["INC-3"], [2, 3, 4])


def test_a_text_behind_a_first_row_whose_id_is_spoilt_is_no_id() -> None:
    read = Read('ticket_id,raw_status,location_name,owner,,,\nI"NC-1,Closed,x,Wa\nno. 48012,,,\nINC-2,New,x,y,,,\n')
    assert (read.ids, read.rejected_lines) == (["INC-2"], [2, 3])


@pytest.mark.parametrize("rest", ["no. 48013", "Njoroge"])
def test_a_text_behind_a_first_row_without_an_id_is_no_id(rest: str) -> None:
    read = Read(f"ticket_id,raw_status,location_name,owner,,,\nNone,New,x,Mwangi\n{rest},,,\nINC-2,New,x,y,,,\n")
    assert (read.ids, read.rejected_lines) == (["INC-2"], [2, 3])


@pytest.mark.parametrize("ticket_id", ["INC 12", "alpha"])
def test_where_the_id_is_the_only_column_it_may_be_any_text(ticket_id: str) -> None:
    assert Read(f"ticket_id\n{ticket_id}\n").ids == [ticket_id]


def test_quotes_that_are_a_part_of_texts_do_not_keep_a_fault_open() -> None:
    rows = "".join(f'x "y",E11-{number},New\n' for number in range(2, 9))
    read = Read(f'owner,ticket_id,raw_status\n"x,E11-1,New\n{rows}')
    assert (len(read.ids) >= 6, read.rejected_lines[0]) == (True, 2)


def test_a_number_in_the_rest_of_a_row_is_no_id_of_digits() -> None:
    names = "raw_status,location_name,ticket_id,owner,closed_at,is_alarm\n"
    read = Read(names + "New,x,48018,y,,0\nNew,x,48019,Amina\nno. 5,2026-06-25,0\nNew,x,48020,y,,0\n")
    assert (read.ids, read.rejected_lines) == (["48018", "48020"], [3, 4])


@pytest.mark.parametrize("rest", ["\"Ng'ombe,", " \"Ng'ombe,"])
def test_a_row_is_not_lost_behind_one_whose_second_half_begins_with_a_quote(rest: str) -> None:
    body = f"raw_status,ticket_id,location_name,owner\nClosed,48012,Kwa\n{rest}\nNew,48013,Karen,Amina\n"
    assert Read(body).ids == ["48013"]


def test_two_quotes_astray_make_no_text_of_a_row_of_nothing() -> None:
    read = Read(NARROW + 'E11-1,"New,x\ny,\n,,,"\nE11-2,New,x,y\n')
    assert (read.ids, read.rejected_lines[:2]) == (["E11-2"], [2, 3])


def test_a_word_for_nothing_in_the_place_of_an_id_is_no_form_of_ids() -> None:
    read = Read(NARROW + 'NULL,New,x,y\nE11-1,New,x,"a ""waiting\n\nwaiting,b"x\nE11-2,New,x,y\n')
    assert read.ids == ["E11-2"]


@pytest.mark.parametrize("said", ['"EXPORT STOPPED at 10 MB," rest later"', '"EXPORT STOPPED at 10 MB, rest later'])
def test_behind_what_the_exporter_writes_for_a_row_one_is_a_row_however_its_quotes_are(said: str) -> None:
    read = Read(f"raw_status,ticket_id,location_name,owner\nNew,INC-1,x,y\n{said}\nNew,INC-2,x,y\n")
    assert (read.ids, len(read.dropped), read.rejects) == (["INC-1", "INC-2"], 1, [])


def test_two_quotes_astray_make_no_text_of_a_row_behind_what_the_exporter_writes_for_one() -> None:
    read = Read('raw_status,owner,ticket_id\nEXPORT STOPPED; rest later,"\nNew,",INC-1\nNew,x,INC-2\n')
    assert (read.ids, len(read.dropped), read.rejected_lines) == (["INC-2"], 1, [3])


@pytest.mark.parametrize("odd", [b"\xc3", b"\x07"])
def test_behind_a_quote_astray_and_an_id_that_cannot_be_read_a_row_is_one(odd: bytes) -> None:
    names = b"raw_status,owner,ticket_id,mttr,cluster\n"
    read = Read(names + b'New,x,INC-1,90,y\n"New,x,INC-' + odd + b"2,90\nNew,x,INC-3,90,y\n")
    assert (read.ids, read.rejected_lines) == (["INC-1", "INC-3"], [3])


# The header.


@pytest.mark.parametrize("name", [
    "Closed_at", "CLOSED AT", "closed\u200b_at", "closed\u00ad_at", "closed-at", "Closed\u00a0At", "\uff43losed_at",
])  # fmt: skip
def test_a_name_that_is_respelt_is_the_same_column(name: str) -> None:
    read = Read(f"ticket_id,{name}\nE14-1,2026-06-25 14:20:00\n")
    assert read.tickets[0].closed_at == datetime(2026, 6, 25, 11, 20, tzinfo=UTC)
    assert read.rows.notes.renamed == {"closed_at": name}


def test_a_column_that_the_exporter_always_writes_may_not_be_missing() -> None:
    names = [name for name in INC.always if name not in {"closed_at", "cluster"}]
    content = ",".join(["ticket_id", *names]) + "\nE14-1" + "," * len(names) + "\n"
    error = refusal(content, allows_missing=False)
    assert (error.reason, "closed_at" in str(error), "cluster" in str(error)) == ("columns missing", True, True)
    assert set(Read(content).rows.notes.missing) == {"closed_at", "cluster"}


def test_a_column_twice_has_to_be_alike_in_every_row() -> None:
    assert Read("ticket_id,owner,Owner\nE14-1,Amina,Amina\n").values == [{"ticket_id": "E14-1", "owner": "Amina"}]
    error = refusal("ticket_id,closed_at,owner,Closed At,Owner\nE14-1,,Amina,NULL,Dina\n")
    assert (error.reason, "'closed_at' and 'Closed At'" in str(error), "'owner' and 'Owner'" in str(error)) == (
        "columns twice", True, True,
    )  # fmt: skip


def test_a_file_is_refused_for_what_comes_first() -> None:
    """Rows are judged several at a time, and what is behind them is met by then."""
    twice, astray = "E14-1,Amina,Dina\n", "owner,location_name,raw_status\n"
    assert refusal("ticket_id,owner,Owner\n" + twice + astray).reason == "columns twice"
    assert refusal("ticket_id,owner,Owner\n" + twice.replace("Dina", "Amina") + astray).reason == "header astray"
    rows = Rows(
        io.BytesIO((NARROW + "E14-1,New,x,y\n" + astray).encode()).read, INC, max_reject_share=1, allows_missing=True
    )
    told = iter(rows)
    assert isinstance(next(told), TicketRow)
    with pytest.raises(Permanent, match="names columns, but not ticket_id"):
        next(told)


@pytest.mark.parametrize(("column", "one", "other"), [
    ("cluster", "-", "N/A"), ("owner", "NULL", ""), ("raw_status", "New", "NEW"), ("mttr", "90", "90"),
    ("closed_at", "2026-01-01 00:00:00", "2026-01-01T00:00:00"), ("cluster", "Thika  Rd", "Thika\u00a0Rd"),
])  # fmt: skip
def test_what_means_the_same_in_a_column_is_alike(column: str, one: str, other: str) -> None:
    assert Read(f"ticket_id,{column},{column.title()}\nE14-1,{one},{other}\n").ids == ["E14-1"]


def test_of_a_row_that_is_left_out_nothing_has_to_be_alike() -> None:
    read = Read("ticket_id,is_alarm,owner,Owner\nE14-1,true,Amina,Dina\nE14-2,false,Amina,Amina\n")
    assert (read.ids, len(read.dropped)) == (["E14-2"], 1)


def test_a_column_without_a_name_is_told() -> None:
    assert Read(",ticket_id,owner\n0,E14-1,Amina\n").rows.notes.undeclared == ("column_1",)


def test_undeclared_columns_of_one_name_are_kept_under_numbered_names() -> None:
    read = Read("ticket_id,Note,Note\nE14-1,a,b\n")
    assert read.values == [{"ticket_id": "E14-1", "Note": "a", "Note_2": "b"}]
    assert read.rows.notes.undeclared == ("Note", "Note_2")


# Ids.


@pytest.mark.parametrize("written", [
    "E14-1\u200b", "E14\ufeff-1", "\u200eE14-1", "E14-1\u202c", "E1\u00ad4-1", "E14\u20111", "'E14-1", '="E14-1"',
    '"""E14-1"""', "\u00a0E14-1 ", '"=""E14-1"""', "E14\ufe0f-1", "\u034fE14-1", "E14-1\u3164", "E14-1\u2800",
])  # fmt: skip
def test_an_id_that_is_spelt_another_way_is_the_same_ticket(written: str) -> None:
    assert Read(NARROW + f"{written},New,x,y\n").ids == ["E14-1"]


@pytest.mark.parametrize(("written", "said"), [
    ("1.23E+11", "spreadsheet"), ("70412.0", "spreadsheet"), ("E14\x07-1", "control character"),
    ("1.5E7", "spreadsheet"), ("1.23456789E8", "spreadsheet"), ("-70412.0", "spreadsheet"), ("+70412.0", "spreadsheet"),
    ('"70412,0"', "spreadsheet"), ('"70,412.0"', "spreadsheet"), ("70412.", "spreadsheet"), ("#NAME?", "no ticket_id"),
    ("#REF!", "no ticket_id"), ('"E14\n-1"', "line break"),
    ("-", "no ticket_id"), ("NULL", "no ticket_id"), ("", "no ticket_id"),
    ('","', "neither a letter nor a digit"), ("owner", "name of a column"),
])  # fmt: skip
def test_an_id_that_cannot_be_known_is_a_reject(written: str, said: str) -> None:
    read = Read(NARROW + f"{written},New,x,y\n")
    assert read.ids == []
    assert said in read.rejects[0].reason


@pytest.mark.parametrize("ticket_id", ["00118001", "70412", "E14-1", "INC 12", "2026/06/0012", "a_b#7", "Ng'ombe-1"])
def test_a_clean_id_stays_as_it_is(ticket_id: str) -> None:
    assert Read(NARROW + f"{ticket_id},New,x,y\n").ids == [ticket_id]


def test_a_place_with_spaces_of_another_kind_is_the_same_place() -> None:
    read = Read("ticket_id,cluster,location_name\nE14-1,Nairobi\u00a0West,Thika  Rd\u200b\n")
    assert read.values == [{"ticket_id": "E14-1", "cluster": "Nairobi West", "location_name": "Thika Rd"}]


# One odd thing.


@pytest.mark.parametrize("odd", [b"M\xfcthaiga", b"\xed\xa0\xbd\xed\xb8\x80", b"x\xc3"])
def test_what_is_no_utf_8_costs_its_own_row_alone(odd: bytes) -> None:
    read = Read(NARROW.encode() + b"E14-1,New," + odd + b",y\nE14-2,New,x,y\n")
    assert (read.ids, read.rejected_lines) == (["E14-2"], [2])


@pytest.mark.parametrize("content", [
    NARROW + "E14-1,New,x,y,\nE14-2,New,,,\n",
    NARROW.replace("\n", ",\n") + "E14-1,New,x,y\nE14-2,New,,\n",
    NARROW + "E14-1,New,x,y\nE14-2,New\n",
    NARROW + "E14-1,New,x,y\n,,,\n,\n,,,,,\nE14-2,New,,\n",
])  # fmt: skip
def test_delimiters_too_many_or_too_few_at_the_end_mean_nothing(content: str) -> None:
    read = Read(content)
    assert (read.ids, read.rejects) == (["E14-1", "E14-2"], [])
    assert read.values[1] == {"ticket_id": "E14-2", "raw_status": "NEW"}


def test_a_share_of_less_than_ten_rows_says_nothing() -> None:
    bad = "E14-1,New,x,y,z\n"
    assert len(Read(NARROW + 9 * bad, max_reject_share=0.1).rejects) == 9
    assert refusal(NARROW + 10 * bad, max_reject_share=0.1).reason == "too many rejects"
    long = '"' + "\n".join(12 * ["a line"]) + '"'
    read = Read(f"ticket_id,mttr,owner\nE14-1,abc,{long}\nE14-2,90,x\n", max_reject_share=0.5)
    assert (read.ids, len(read.rejected_lines)) == (["E14-2"], 12), "rows, however many lines they take"


# Nothing, and never.


@pytest.mark.parametrize("word", ["NULL", "null", r"\N", "nan", "None", "N/A", "n/a", "-", "--", "#N/A"])
def test_a_word_for_nothing_is_nothing_in_columns_that_are_looked_at(word: str) -> None:
    read = Read(f"ticket_id,closed_at,cluster,mttr,Note\nE14-1,{word},{word},{word},{word}\n")
    assert read.values == [{"ticket_id": "E14-1", "Note": word}]
    assert (read.tickets[0].closed_at, read.rejects) == (None, [])


@pytest.mark.parametrize("written", [
    '="N/A"', '"=""NULL"""', "'NULL", '"""NULL"""', "NULL\u200b", "\ufeffN/A", "\u200b", '=""', "'", "\u2800",
])  # fmt: skip
def test_a_word_for_nothing_is_one_behind_what_is_not_of_it(written: str) -> None:
    read = Read(f"ticket_id,cluster,location_name,owner\nE14-1,{written},{written},{written}\n")
    assert (read.values, read.rejects) == ([{"ticket_id": "E14-1"}], [])


@pytest.mark.parametrize("date", [
    "0001-01-01T00:00:00", "1753-01-01", "1899-12-30", "1900-01-01", "1970-01-01", "2999-12-31", "9999-12-31 23:59:59",
])  # fmt: skip
def test_a_date_that_means_never_is_none_is_counted_and_stays_in_raw(date: str) -> None:
    read = Read(f"ticket_id,closed_at\nE14-1,{date}\n")
    assert read.values == [{"ticket_id": "E14-1", "closed_at": date}]
    assert (read.tickets[0].closed_at, read.rows.never) == (None, 1)


# The header again.


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_the_same_header_again_is_passed_over_and_counted(mark: str) -> None:
    read = Read(NARROW + "E14-1,New,x,y\n" + mark + NARROW + "E14-2,New,x,y\n")
    assert (read.ids, read.rejects, read.rows.lines.header) == (["E14-1", "E14-2"], [], 2)


def test_another_header_is_read_by_from_there_on() -> None:
    read = Read(NARROW + "E14-1,New,x,y\nowner,ticket_id,raw_status\ny,E14-2,New\n")
    assert read.values[1] == {"ticket_id": "E14-2", "raw_status": "NEW", "owner": "y"}


@pytest.mark.parametrize(("end", "owner"), [
    ("y", "y"), ("", None), ("y\ufeff", "y"), ("y,", "y"),
])  # fmt: skip
def test_a_header_behind_a_row_without_a_line_end_between_them(end: str, owner: str | None) -> None:
    read = Read(NARROW + f"E14-1,New,x,{end}" + NARROW + "E14-2,New,x,y\n")
    assert read.ids == ["E14-1", "E14-2"]
    assert read.values[0].get("owner") == owner


def test_a_glued_header_with_one_column_more_in_front_gives_no_row_its_name() -> None:
    glued = "E11-1,New,x,\ufeffweek," + NARROW
    assert refusal(NARROW + glued).reason == "glued exports"


def test_two_exports_in_quotes_without_a_line_end_between_them() -> None:
    header = '"ticket_id","owner"'
    read = Read(f'{header}\n"E14-1","Amina"{header}\n"E14-2","Dina"\n')
    assert [values["owner"] for values in read.values] == ["Amina", "Dina"]


@pytest.mark.parametrize("again", [
    "E14-2,New,x,yticket_id,owner,location_name,raw_status\n",
    'E14-2,New,x,"y"ticket_id,owner,location_name,raw_status\n',
    'ticket_id,"owner,location_name,raw_status\n',
    'ticket_id,o"wner,location_name,raw_status\n',
    "number,owner,location_name,raw_status\n",
    'ticket_id,"owner,location_name",raw_status\n',
    '"ticket_id,owner,location_name,raw_status"\n',
    'ticket_id,"owner,location_name,raw_status"\n',
    'E14-2,New,"x,yticket_id,owner",location_name,raw_status\n',
])  # fmt: skip
def test_rows_behind_another_header_that_cannot_be_read_are_not_read_by_the_first(again: str) -> None:
    error = refusal(NARROW + "E14-1,New,x,y\n" + again + "E14-3,Amina,Karen,New\n")
    assert error.reason in {"glued exports", "header astray"}


@pytest.mark.parametrize("row", ['E14-2,New,"see ticket_id, owner",y\n', 'E14-2,New,"see ticket_id, owner"\n'])
def test_a_text_in_quotes_may_name_columns(row: str) -> None:
    assert Read(NARROW + row + "E14-3,New,x,y\n").ids == ["E14-2", "E14-3"]


def test_a_row_whose_values_are_names_of_columns_costs_itself_alone_at_most() -> None:
    read = Read(NARROW + "OPS1,Raw Status,,Owner\nINC-7,New,x,y\nINC-8,Raw Status,,Owner\n")
    assert (read.ids, read.rejected_lines) == (["INC-7", "INC-8"], [2])
    assert refusal(NARROW + "INC-7,New,x,y\nraw_status,owner,,\n").reason == "header astray"


def test_another_header_that_is_glued_behind_fewer_fields_is_no_row() -> None:
    content = "ticket_id,owner,raw_status,location_name,,,\nE14-1,a,New,xticket_id,location_name,raw_status,owner\n"
    assert refusal(content + "E14-2,Karen,New,Amina\n").reason == "glued exports"


@pytest.mark.parametrize(("header", "row"), [
    (NARROW, "NULL,New,x,ticket_id,owner,raw_status,location_name\n"),
    (NARROW, "E14-2,Newticket_id,owner,raw_status\n"),
    (NARROW + "E14-1,New,x,y\n", "E14-2,Newticket_id,owner,Kata\n"),
    (NARROW, "E14-2,In\nProgress,x,ticket_id,raw_status,location_name,owner\n"),
    ("owner,ticket_id,raw_status\n", "x,E14-2,Pending\n- Customerowner,ticket_id,raw_status\n"),
    ("raw_status,owner,ticket_id,,\n", "New,x,E14-2raw_status,ticket_id,owner\n"),
    ("raw_status,owner,location_name,ticket_id\n", "New,x,,E14-2ticket_id,location_name,owner,raw_status\n"),
])  # fmt: skip
def test_a_row_is_never_lost_in_another_header(header: str, row: str) -> None:
    assert refusal(header + row + "E14-3,New,x,y\n").reason == "glued exports"


def test_a_header_behind_the_rest_of_a_row_makes_no_other_header_of_both() -> None:
    header = "ticket_id,raw_status,owner,,,\n"
    read = Read(header + "E14-1,New,Mwangi\nwa Njoroge no. 5,,," + header + "E14-2,New,x\n")
    assert (read.ids, read.rejected_lines) == (["E14-1", "E14-2"], [3])


def test_another_header_may_have_columns_that_nobody_knows() -> None:
    again = "ticket_id,parent_ticket_id,owner,raw_status\nE14-2,E14-1,y,New\n"
    read = Read(NARROW + "E14-1,New,x,y\n" + again + "Kata,ticket_id,owner\nr,E14-3,z\n")
    assert [values.get("parent_ticket_id") for values in read.values] == [None, "E14-1", None]
    assert [values.get("Kata") for values in read.values] == [None, None, "r"]


# Spaces, delimiters and encodings.


def test_a_space_before_a_quote_means_nothing() -> None:
    read = Read('ticket_id,cluster,owner\nX, "Karen, Nairobi", Amina\n')
    assert read.values == [{"ticket_id": "X", "cluster": "Karen, Nairobi", "owner": "Amina"}]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_space_behind_a_quote_means_nothing(end: str) -> None:
    rows = ('"ticket_id" ,"cluster","owner" ', '"E14-1" , "Karen, ""K"" "  ,"Amina" ', '"E14-2","Karen" ,Dina')
    read = Read(end.join(rows))
    assert read.values == [
        {"ticket_id": "E14-1", "cluster": 'Karen, "K"', "owner": "Amina"},
        {"ticket_id": "E14-2", "cluster": "Karen", "owner": "Dina"},
    ]


def test_a_quote_astray_beside_a_space_behind_another_one_is_told() -> None:
    read = Read(NARROW + 'E14-1,"New" ,"x"y,z\nE14-2,"New" ,"x,y\nE14-3,New,x,y\n')
    assert (read.ids, read.rejected_lines) == (["E14-3"], [2, 3])


@pytest.mark.parametrize("said", [False, True])
@pytest.mark.parametrize("delimiter", [";", "\t", "|", ","])
def test_delimiters_are_told_by_the_header(delimiter: str, said: bool) -> None:
    content = NARROW + "E14-1,New,x,y\n"
    line = f"sep={delimiter}\n" if said else ""
    read = Read(line + content.replace(",", delimiter))
    assert read.values == [{"ticket_id": "E14-1", "raw_status": "NEW", "location_name": "x", "owner": "y"}]


@pytest.mark.parametrize("before", [",,,\n", '"",""\n', ";;;\nsep=;;;;\n", "sep=,\n", '"sep=;"\n'])
def test_what_stands_before_the_header_means_nothing(before: str) -> None:
    read = Read(f"{before}ticket_id;raw_status;location_name;owner\nE14-1;New;x;y\n")
    assert (read.ids, read.rejects) == (["E14-1"], [])


def test_empty_lines_around_the_line_that_says_the_delimiter_mean_nothing() -> None:
    read = Read("\nsep=;\n\nticket_id;owner\nE14-1;y\n")
    assert (read.ids, read.rows.lines.blank, read.rows.lines.header) == (["E14-1"], 2, 2)


@pytest.mark.parametrize("delimiter", [",", ";"])
@pytest.mark.parametrize("quote", ["", '"'])
def test_a_line_that_says_the_delimiter_means_nothing_before_a_header_that_comes_again(
    delimiter: str, quote: str
) -> None:
    export = f"{quote}sep={delimiter}{quote}\n" + NARROW.replace(",", delimiter)
    rows = ["E14-1,New\n".replace(",", delimiter), "E14-2,New,x,y\n".replace(",", delimiter)]
    read = Read(export + rows[0] + export + rows[1])
    assert (read.ids, read.rejects, read.rows.lines.header) == (["E14-1", "E14-2"], [], 4)


def test_two_quotes_astray_make_no_text_of_a_line_that_says_the_delimiter() -> None:
    read = Read(NARROW + 'E14-1,"New,x,y\nsep=,"\n' + NARROW + "E14-2,New,x,y\n")
    assert (read.ids, read.rejected_lines) == (["E14-2"], [2, 3])


def test_a_mark_that_was_encoded_twice_hides_no_header_of_two_columns() -> None:
    mark = b"\xef\xbb\xbf".decode("cp1252")
    read = Read(f"{mark}ticket_id,owner\nE14-1,x\n{mark}owner,ticket_id\ny,E14-2\n")
    assert (read.ids, [row["owner"] for row in read.values]) == (["E14-1", "E14-2"], ["x", "y"])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize(("page", "said"), [("<!DOCTYPE html><p>Log in", "HTML"), ('{"error": 403}', "JSON")])
def test_a_page_in_the_place_of_a_file_is_told_behind_a_mark_too(encoding: str, page: str, said: str) -> None:
    assert said in str(refusal(page.encode(encoding)))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("members", [0, 1, 3])
def test_marks_and_gzip_are_read(encoding: str, members: int) -> None:
    content = (NARROW + "E14-1,New,Mūthaiga,y\n").encode(encoding)
    if members:
        length = -(-len(content) // members)
        content = b"".join(gzip.compress(content[at : at + length]) for at in range(0, len(content), length))
    assert Read(content).values[0]["location_name"] == "Mūthaiga"


@pytest.mark.parametrize(("content", "said"), [
    (b"PK\x03\x04" + bytes(30), "zip"), (NARROW.encode("utf-16-le"), "UTF-16"),
    (NARROW.replace("owner", "Müller").encode("cp1252") + b"E14-1,New,x,y\n", "Windows-1252"),
    (gzip.compress(NARROW.encode() * 50, mtime=0)[:60], "gzip"),
])  # fmt: skip
def test_what_is_not_read_is_refused_by_its_name(content: bytes, said: str) -> None:
    assert said in str(refusal(content))


# Messages.


def test_a_reject_has_its_own_line() -> None:
    read = Read(NARROW + 'E14-1,New,x,"a\nb"\n' + "E14-2,New,x,y\n" * 197 + "E14-3,New,x,y,z\n")
    assert [reject.line for reject in read.rejects] == [201]


@pytest.mark.parametrize(("column", "form"), [
    ("closed_at", "YYYY-MM-DD"), ("mttr", "90.5"), ("is_actionable", "true"),
])  # fmt: skip
def test_a_refused_value_is_told_with_the_forms_that_are_taken(column: str, form: str) -> None:
    assert form in Read(f"ticket_id,{column}\nE14-1,perhaps\n").rejects[0].reason


def test_too_many_rejects_tells_how_many_there_are_of_each_kind() -> None:
    bad = ["E14-1,New,x,y,z\n"] * 150 + ["1.23E+11,New,x,y\n"] * 7
    error = refusal(NARROW + "".join(bad), max_reject_share=0.1)
    assert "150 x" in str(error)
    assert "7 x" in str(error)
    assert len(error.rejects) == 100  # type: ignore[attr-defined]
