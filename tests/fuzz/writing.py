"""Change files as they are really exported: good rows, written with any mix of habits, and what each has to become.

A file is made of pieces, of one or several lines. Of each it is known what must become of it, since it is known how
it was made; where a quote is put astray or the file is cut, a piece may be either right or a reject.
"""

import gzip
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from itertools import pairwise
from random import Random

from hypothesis import strategies as st
from hypothesis.vendor.pretty import RepresentationPrinter

from tests.fuzz import tickets
from tests.fuzz.tickets import NO_VALUE, Ticket, Value

FIRST_NUMBER = 48_012
MAX_ROWS = 12
_LINE = re.compile(r"\r\n|\n|\r")
_MORE = "more"
"""What is in a row's field that is one too many."""


class Habit(Enum):
    """What exporters, spreadsheets and people do to a file."""

    MARK = auto()
    UTF_16 = auto()
    GZIP = auto()
    SEPARATOR_LINE = auto()
    FULL = auto()
    RESPELLED_NAMES = auto()
    UNDECLARED = auto()
    TWICE = auto()
    TRAILING_DELIMITERS = auto()
    HEADER_DELIMITERS = auto()
    SHORT_ROWS = auto()
    BLANK_LINES = auto()
    BLANK_ROWS = auto()
    SPACES = auto()
    QUOTES_EVERYWHERE = auto()
    BARE_QUOTES = auto()
    NOTHING = auto()
    HEADER_AGAIN = auto()
    OTHER_HEADER = auto()
    GLUED = auto()
    DROPPED = auto()
    MENDED_IDS = auto()
    SPOILT_IDS = auto()
    SPOILT_VALUES = auto()
    MORE_FIELDS = auto()
    NOT_UTF_8 = auto()
    BROKEN_LINES = auto()
    TWO_ID_FORMS = auto()
    SAME_ID = auto()


class Fate(Enum):
    """What must become of a piece."""

    TAKEN = auto()
    DROPPED = auto()
    REJECTED = auto()
    EITHER = auto()
    """Taken as it stands there, or a reject."""
    NO_ROW = auto()


@dataclass(frozen=True, slots=True)
class Name:
    """One column of a header: as it is written, and as `raw` has it; None where it has no name."""

    written: str
    key: str | None


@dataclass(frozen=True, slots=True)
class Piece:
    """A row with its lines, or what stands between rows."""

    text: str
    fate: Fate = Fate.NO_ROW
    ticket: Ticket | None = None
    names: tuple[Name, ...] = ()
    is_header: bool = False
    is_blank: bool = False
    glued_at: int | None = None
    """Where a header begins in it, behind a row."""
    broken_at: int = 0
    """Where a text that is not in quotes has a line break."""
    has_lost_id: bool = False
    is_short: bool = False
    may_drop: bool = False
    end: str = ""
    """Its line end, which is a part of the text."""

    @property
    def id_form(self) -> str:
        """What is alike in all ids of one of the forms, and in no other's."""
        return re.sub(r"\w", "x", self.ticket.ticket_id) if self.ticket else ""

    @property
    def has_text(self) -> bool:
        """Whether there is more in it than delimiters and quotes."""
        return any(map(str.isalnum, self.text))

    @property
    def body(self) -> str:
        return self.text[: len(self.text) - len(self.end)]

    @property
    def row(self) -> str:
        """Its text without a header that is glued to it."""
        return self.text[: self.glued_at]


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """A file, and what must become of it; `may_fail` are reasons that it may be refused whole for, "*" any."""

    content: bytes
    pieces: tuple[Piece, ...]
    delimiter: str
    allows_missing: bool
    may_fail: frozenset[str]
    is_exact: bool
    """Whether what is told of it in all has to be exact: no piece is astray."""
    text: str

    def _repr_pretty_(self, printer: RepresentationPrinter, _: bool) -> None:
        printer.text(f"WrittenFile({self.content[:1000]!r}...)")


@dataclass(slots=True)
class _Plan:
    habits: frozenset[Habit]
    delimiter: str
    line_end: str
    rng: Random
    id_forms: Sequence[Callable[[int], str]]
    has_plain_rows: bool
    may_fail: set[str] = field(default_factory=set)

    def does(self, habit: Habit, share: float = 1.0) -> bool:
        return habit in self.habits and (share >= 1 or self.rng.random() < share)


@st.composite
def written_files(draw: st.DrawFn, *, most_stray: int = 3, habits: frozenset[Habit] = frozenset(Habit)) -> WrittenFile:
    """Files of up to a dozen rows, with up to so many quotes astray or, of all habits, maybe cut off."""
    plan = _Plan(
        habits=frozenset(draw(st.sets(st.sampled_from(sorted(habits, key=lambda habit: habit.value)), max_size=7))),
        delimiter=draw(st.sampled_from(",,,;\t|")),
        line_end=draw(st.sampled_from(("\n", "\r\n", "\r"))),
        rng=Random(draw(st.integers(0, 2**32))),
        id_forms=draw(st.lists(st.sampled_from(tickets.ID_FORMS), min_size=1, max_size=1)),
        has_plain_rows=draw(st.booleans()),
    )
    if Habit.TWO_ID_FORMS in plan.habits:
        plan.id_forms = [*plan.id_forms, draw(st.sampled_from(tickets.ID_FORMS))]
    pieces = _pieces(plan, draw(st.integers(1, MAX_ROWS)))
    cut = draw(st.none() | st.integers(0, 2**16)) if habits == frozenset(Habit) else None
    stray = draw(st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 2**16)), max_size=most_stray))
    pieces = _with_stray_quotes(plan, pieces, stray)
    pieces = _with_doubt(plan, pieces)
    return _as_file(plan, pieces, cut)


def _pieces(plan: _Plan, count: int) -> list[Piece]:
    names = _header_names(plan)
    pieces: list[Piece] = []
    if plan.does(Habit.SEPARATOR_LINE):
        pieces.append(_line(plan, f"sep={plan.delimiter}", is_header=True))
    if plan.does(Habit.BLANK_LINES, 0.3):
        pieces.append(_line(plan, "", is_blank=True))
    pieces.append(_header(plan, names))
    previous = ""
    for number in range(FIRST_NUMBER, FIRST_NUMBER + count):
        if plan.does(Habit.BLANK_LINES, 0.2):
            pieces.append(_line(plan, plan.rng.choice(("", "  ")), is_blank=True))
        if plan.does(Habit.BLANK_ROWS, 0.2):
            pieces.append(_line(plan, plan.delimiter * plan.rng.randrange(1, len(names) + 2), is_blank=True))
        if plan.does(Habit.HEADER_AGAIN, 0.2):
            pieces += _header_again(plan, names)
        if plan.does(Habit.OTHER_HEADER, 0.2):
            names = _other_names(plan, names)
            pieces += _header_again(plan, names)
        if plan.does(Habit.DROPPED, 0.1):
            said = plan.rng.choice(
                ("EXPORT STOPPED", "EXPORT STOPPED: 10000 rows", "EXPORT STOPPED at 10 MB; rest later")
            )
            more = plan.delimiter * plan.rng.choice((0, 1, len(names) - 1))
            pieces.append(_line(plan, _cell(plan, said) + more, fate=Fate.DROPPED))
        is_again = previous and plan.does(Habit.SAME_ID, 0.3)
        previous = previous if is_again else plan.rng.choice(plan.id_forms)(number)
        pieces.append(_row(plan, names, previous, number))
        if plan.does(Habit.GLUED, 0.2):
            names = _glue(plan, pieces, names)
    return pieces


def _line(plan: _Plan, text: str, **more: object) -> Piece:
    return replace(Piece(text + plan.line_end, end=plan.line_end), **more)  # type: ignore[arg-type]


def _header_names(plan: _Plan) -> tuple[Name, ...]:
    rng = plan.rng
    if Habit.FULL in plan.habits:
        keys = [*tickets.ALWAYS, *rng.sample(tickets.OPTIONAL, rng.randrange(len(tickets.OPTIONAL) + 1))]
    else:
        keys = [
            *tickets.NARROW,
            *rng.sample(("closed_at", "mttr", "cluster", "is_alarm", "department"), rng.randrange(4)),
        ]
    if rng.random() < 0.3:
        rng.shuffle(keys)
    keys.insert(0 if rng.random() < 0.8 else rng.randrange(len(keys) + 1), "ticket_id")
    names = [Name(_respelled(plan, key), key) for key in keys]
    if plan.does(Habit.TWICE):
        key = rng.choice(keys)
        names.insert(rng.randrange(len(names) + 1), Name(key.replace("_", " ").title(), key))
    if plan.does(Habit.UNDECLARED):
        seen: dict[str, int] = {}
        for _ in range(rng.randrange(1, 4)):
            written = rng.choice(tickets.UNDECLARED)
            seen[written] = seen.get(written, 0) + 1
            names.append(Name(written, written if seen[written] == 1 else f"{written}_{seen[written]}"))
    if plan.does(Habit.HEADER_DELIMITERS):
        names += [Name("", None)] * rng.randrange(1, 4)
    return tuple(names)


def _other_names(plan: _Plan, names: tuple[Name, ...]) -> tuple[Name, ...]:
    """Another order, maybe with one column more or less."""
    named = [name for name in names if name.key is not None]
    declared = [name for name in named if name.key not in {f"{undeclared}_{n}" for undeclared in tickets.UNDECLARED
                                                           for n in (2, 3)}]  # fmt: skip
    plan.rng.shuffle(declared)
    if plan.rng.random() < 0.5 and not any(name.key == "week_start" for name in declared):
        declared.insert(plan.rng.randrange(len(declared) + 1), Name("week_start", "week_start"))
    elif plan.rng.random() < 0.5:
        declared = [name for name in declared if name.key not in {"department", "week_start"}]
    return tuple(declared)


def _respelled(plan: _Plan, key: str) -> str:
    if not plan.does(Habit.RESPELLED_NAMES, 0.5):
        return key
    place = plan.rng.randrange(len(key) + 1)
    return plan.rng.choice((
        key.upper(), key.title(), key.replace("_", " "), key.replace("_", "-").capitalize(),
        key.replace("_", " ").title(), f"{key[:place]}\u200b{key[place:]}", f"{key[:place]}\u00ad{key[place:]}",
        key.replace("_", "\u00a0"), f" {key} ", key.replace("_", "\u2011"), key.replace("_", ""),
    ))  # fmt: skip


def _header(plan: _Plan, names: tuple[Name, ...], mark: str = "") -> Piece:
    text = plan.delimiter.join(_cell(plan, name.written) for name in names)
    return _line(plan, mark + text, is_header=True, names=names)


def _header_again(plan: _Plan, names: tuple[Name, ...]) -> list[Piece]:
    mark = plan.rng.choice(("", "\ufeff"))
    if not plan.does(Habit.SEPARATOR_LINE, 0.5):
        return [_header(plan, names, mark)]
    return [_line(plan, f"{mark}sep={plan.delimiter}", is_header=True), _header(plan, names)]


def _cell(plan: _Plan, written: str) -> str:
    needs_quotes = any(char in written for char in (plan.delimiter, '"', "\n", "\r"))
    if needs_quotes and plan.does(Habit.BARE_QUOTES) and written[:1] != '"':
        needs_quotes = any(char in written for char in (plan.delimiter, "\n", "\r"))
    if written and plan.does(Habit.QUOTES_EVERYWHERE, 0.8):
        needs_quotes = True
    cell = '"{}"'.format(written.replace('"', '""')) if needs_quotes else written
    return f" {cell}" if cell and plan.does(Habit.SPACES, 0.4) else cell


def _values(plan: _Plan, names: tuple[Name, ...], number: int) -> dict[str, Value]:
    rng, values = plan.rng, {}
    for name in names:
        key = name.key
        if key is None or key == "ticket_id" or key in values:
            continue
        if plan.has_plain_rows and rng.random() < 0.8:
            values[key] = tickets.plain(key)
        elif key in tickets.MAKERS or key == "week_start":
            values[key] = tickets.MAKERS.get(key, tickets.MAKERS["department"])(rng, number)
        else:
            values[key] = tickets.undeclared(rng, number)
        if key != "raw_status" and rng.random() < 0.2:
            values[key] = NO_VALUE
        elif plan.does(Habit.NOTHING, 0.3) and key in tickets.MAKERS and key not in tickets.UNLOOKED_AT:
            values[key] = Value(rng.choice(tickets.NOTHING), None)
    return values


def _row(plan: _Plan, names: tuple[Name, ...], ticket_id: str, number: int) -> Piece:
    values = _values(plan, names, number)
    written, fate = _written_id(plan, ticket_id)
    has_lost_id = fate is Fate.REJECTED
    if plan.does(Habit.DROPPED, 0.2) and "is_alarm" in values and fate is Fate.TAKEN:
        values["is_alarm"], fate = Value(plan.rng.choice(("true", "T", "1")), None), Fate.DROPPED
    if plan.does(Habit.SPOILT_VALUES, 0.3):
        fate = _spoil(plan, values) or fate
    if "raw_status" in values and values["raw_status"].taken is None:
        values["raw_status"] = tickets.plain("raw_status")
    ticket = Ticket(
        ticket_id,
        {"ticket_id": ticket_id} | {key: value.taken for key, value in values.items() if value.taken is not None},
        values["closed_at"].instant if "closed_at" in values else None,
        sum(value.is_never for value in values.values()),
    )
    texts = {key: value.written for key, value in values.items()} | {"ticket_id": written}
    named = max(place for place, name in enumerate(names, start=1) if name.key)
    cells = _cells(plan, [texts[name.key] if name.key else "" for name in names], named)
    piece = _line(
        plan, plan.delimiter.join(cells), fate=Fate.REJECTED if cells[-1] == _MORE else fate, ticket=ticket,
        names=names, may_drop=fate is Fate.DROPPED, has_lost_id=has_lost_id, is_short=len(cells) < named,
    )  # fmt: skip
    if plan.does(Habit.NOT_UTF_8, 0.3) and Habit.UTF_16 not in plan.habits:
        return _with_bytes_astray(plan, piece)
    is_broken = len(cells) <= len(names) and plan.does(Habit.BROKEN_LINES, 0.3)
    return _broken(plan, piece, cells) if is_broken else piece


def _written_id(plan: _Plan, ticket_id: str) -> tuple[str, Fate]:
    if plan.does(Habit.MENDED_IDS, 0.4):
        return tickets.respelled_id(ticket_id, plan.rng.randrange(6), plan.rng), Fate.TAKEN
    if plan.does(Habit.SPOILT_IDS, 0.4):
        return tickets.spoilt_id(ticket_id, plan.rng.randrange(7), plan.rng), Fate.REJECTED
    return ticket_id, Fate.TAKEN


def _cells(plan: _Plan, texts: Sequence[str], named: int) -> list[str]:
    """The fields of a row as they are written, as many as the exporter writes; the first so many have names."""
    cells = [_cell(plan, text) for text in texts]
    if plan.does(Habit.SPACES, 0.3) and not any(_LINE.search(cell) for cell in cells):
        cells = [f"{cell} " if cell.endswith('"') else cell for cell in cells]
    width = len(cells)
    if plan.does(Habit.HEADER_DELIMITERS, 0.7):
        del cells[named:]
    if plan.does(Habit.SHORT_ROWS, 0.6):
        while not cells[-1] and sum(map(bool, cells)) > 1:
            del cells[-1]
    if len(cells) < width:
        return cells
    if plan.does(Habit.MORE_FIELDS, 0.3):
        return [*cells, _MORE]
    return [*cells, ""] if plan.does(Habit.TRAILING_DELIMITERS) else cells


def _spoil(plan: _Plan, values: dict[str, Value]) -> Fate | None:
    spoilt = {"closed_at": "yesterday", "mttr": "1h", "is_actionable": "ja", "owner": "A\0b", "latitude": "1,2"}
    key = plan.rng.choice(sorted(spoilt))
    if key not in values:
        return None
    values[key] = Value(spoilt[key], None)
    return Fate.REJECTED


def _with_bytes_astray(plan: _Plan, piece: Piece) -> Piece:
    """Bytes that are no UTF-8, by Python's surrogates of them, where they make no character with what follows."""
    body = piece.body
    places = [at for at in range(len(body) + 1) if at == len(body) or body[at].isalnum()]
    at = plan.rng.choice(places)
    astray = plan.rng.choice((b"\xfc", b"\xe9\xe8", b"\x80", b"\xed\xa0\xbd\xed\xb8\x80", b"\xc3"))
    text = body[:at] + astray.decode("utf-8", "surrogateescape") + body[at:] + piece.end
    if not body[at : at + 1].isascii():
        return piece
    return replace(piece, text=text, fate=Fate.REJECTED)


def _broken(plan: _Plan, piece: Piece, cells: Sequence[str]) -> Piece:
    """A line break in a text that is not in quotes."""
    places = [at for at, cell in enumerate(cells) if " " in cell.strip() and '"' not in cell]
    if not places:
        return piece
    at = plan.rng.choice(places)
    first, _, rest = cells[at].strip().partition(" ")
    broken = [*cells[:at], f"{first}{plan.rng.choice((chr(10), plan.line_end))}{rest}", *cells[at + 1 :]]
    is_certain = any(cells[at + 1 :]) and piece.names[at].key != "ticket_id"
    fate = Fate.REJECTED if is_certain and piece.fate is not Fate.DROPPED else Fate.EITHER
    text = plan.delimiter.join(broken) + piece.end
    return replace(piece, text=text, fate=fate, broken_at=len(plan.delimiter.join([*cells[:at], first])))


def _glue(plan: _Plan, pieces: list[Piece], names: tuple[Name, ...]) -> tuple[Name, ...]:
    """Put a header behind the last row, without a line end between them."""
    row, others = pieces.pop(), names
    if plan.does(Habit.OTHER_HEADER, 0.5):
        others = _other_names(plan, names)
    header = _header(plan, others, mark=plan.rng.choice(("", "\ufeff")))
    fate = row.fate if row.fate is Fate.REJECTED else Fate.EITHER
    pieces.append(replace(row, text=row.body + header.text, fate=fate, glued_at=len(row.body)))
    plan.may_fail |= {"glued exports", "header astray", "no ticket_id", "columns missing"}
    return others


def _with_stray_quotes(plan: _Plan, pieces: list[Piece], stray: Sequence[tuple[int, int]]) -> list[Piece]:
    first = next(at for at, piece in enumerate(pieces) if piece.names)
    for which, where in stray:
        # One in a row of nothing and one in the row behind it make a text that is written as any other.
        places = [at for at in range(first + 1, len(pieces)) if len(stray) == 1 or not pieces[at].is_blank]
        if not places:
            break
        at = places[which % len(places)]
        piece = pieces[at]
        body = piece.body
        starts = [0, *(place + 1 for place, char in enumerate(body) if char == plan.delimiter)]
        place = starts[where % len(starts)] if where % 2 else where // 2 % (len(body) + 1)
        # As does one in a few fields before a line break, with one in the row before.
        if len(stray) > 1 and place <= piece.broken_at and _has_few(plan, piece.text[: piece.broken_at], piece):
            continue
        pieces[at] = replace(
            piece, text=body[:place] + '"' + body[place:] + piece.end, fate=_fate_when_astray(piece), is_blank=False,
            glued_at=piece.glued_at and piece.glued_at + (place < piece.glued_at),
            may_drop=piece.may_drop or piece.fate is Fate.DROPPED,
        )  # fmt: skip
        if piece.is_header or piece.glued_at:
            plan.may_fail |= {"glued exports", "header astray", "no ticket_id", "columns missing"}
        if Habit.TWICE in plan.habits:
            plan.may_fail.add("columns twice")
    return pieces


def _has_few(plan: _Plan, text: str, piece: Piece) -> bool:
    """Whether it has not more fields than half of the columns."""
    return 2 * len(text.split(plan.delimiter)) <= sum(1 for name in piece.names if name.key)


def _fate_when_astray(piece: Piece) -> Fate:
    """Quotes can put what spoils a row in a text; but they make no id, unless there are some around it."""
    if piece.fate is Fate.REJECTED and (piece.has_lost_id or not piece.text.isascii()) and '"' not in piece.text:
        return piece.fate
    return piece.fate if piece.fate is Fate.NO_ROW else Fate.EITHER


def _with_doubt(plan: _Plan, pieces: list[Piece]) -> list[Piece]:
    """What lies beside a row that cannot be read may be a part of it, as far as anybody can tell.

    So may a row behind it where the id has yet to come, or with a quote before the id as a text ends with, and one
    before it whose last columns are left out, where the other does not begin as rows here do. A line of nothing between
    them, with a quote astray or not, tells nothing.
    """
    rows = [piece for piece in pieces if piece.has_text]
    known: set[str] = set()
    for at, (piece, behind) in enumerate(pairwise(rows)):
        is_astray = behind.fate in {Fate.REJECTED, Fate.EITHER}
        is_one = piece.is_short and piece.fate in {Fate.TAKEN, Fate.DROPPED}
        if is_one and is_astray and not _begins_as_row(plan, behind):
            rows[at] = replace(piece, fate=Fate.EITHER)
        # With an id of a form that is new behind it, two short ones are as wide as one that a line break is in.
        is_new = behind.ticket is not None and behind.id_form not in known
        fields = len(piece.body.split(plan.delimiter)) + len(behind.body.split(plan.delimiter)) - 1
        if is_one and is_new and behind.id_form != piece.id_form and fields <= len(piece.names):
            rows[at] = replace(piece, fate=Fate.EITHER)
        if rows[at].fate is Fate.TAKEN:
            known.add(piece.id_form)
        # Behind one that cannot be read, few fields are a row where their id is of a form that is there already.
        has_few = behind.is_short and _has_few(plan, behind.body, behind)
        if is_new and has_few and rows[at].fate in {Fate.REJECTED, Fate.EITHER} and not is_astray:
            rows[at + 1] = replace(behind, fate=Fate.EITHER)
    others = iter(rows)
    pieces = [next(others) if piece.has_text else piece for piece in pieces]
    found: list[Piece] = []
    fields_before = 0
    for piece in pieces:
        is_touched = piece.fate in {Fate.REJECTED, Fate.EITHER} or '"' in piece.text
        place = [name.key for name in piece.names].index("ticket_id") if piece.names else 0
        is_row = piece.fate in {Fate.TAKEN, Fate.DROPPED}
        if is_row and place and fields_before and (fields_before <= place or '"' in piece.text):
            found.append(replace(piece, fate=Fate.EITHER))
            fields_before = 0
        else:
            found.append(piece)
        if piece.fate is not Fate.TAKEN and is_touched:
            fields_before = len(_LINE.split(piece.body)[-1].replace('"', "").split(plan.delimiter))
        elif piece.fate is not Fate.NO_ROW:
            fields_before = 0
    return found


def _begins_as_row(plan: _Plan, piece: Piece) -> bool:
    """Whether its id is the first thing in it, and of the only form that there is."""
    bare = piece.text.replace('"', "")
    return len(plan.id_forms) == 1 and piece.ticket is not None and bare.lstrip(" ").startswith(piece.ticket.ticket_id)


def _as_file(plan: _Plan, pieces: list[Piece], cut: int | None) -> WrittenFile:
    is_exact = all(piece.fate is not Fate.EITHER and not (piece.fate is Fate.NO_ROW and '"' in piece.text)
                   for piece in pieces)  # fmt: skip
    text = "".join(piece.text for piece in pieces)
    if plan.does(Habit.UTF_16):
        encoding = plan.rng.choice(("utf-16-le", "utf-16-be"))
        mark = "\ufeff"
    else:
        encoding, mark = "utf-8", "\ufeff" if plan.does(Habit.MARK) else ""
    errors = "surrogateescape" if encoding == "utf-8" else "strict"
    content = (mark + text).encode(encoding, errors)
    is_packed = plan.does(Habit.GZIP)
    if cut is not None and not is_packed:
        length = cut % (len(content) + 1)
        pieces, left_out = _cut_pieces(plan, pieces, encoding, length - len(mark.encode(encoding)))
        is_exact = False
        content = content[: length - left_out]
    if is_packed:
        content = _packed(plan, content, 1 if cut is not None else plan.rng.randrange(1, 4))
        if cut is not None:
            content = content[: cut % (len(content) + 1)]
            plan.may_fail.add("*")
    if Habit.TWICE in plan.habits and Habit.BROKEN_LINES in plan.habits:
        plan.may_fail.add("columns twice")
    text = "".join(piece.text for piece in pieces)
    return WrittenFile(
        content, tuple(pieces), plan.delimiter, Habit.FULL not in plan.habits, frozenset(plan.may_fail), is_exact, text
    )


def _cut_pieces(plan: _Plan, pieces: list[Piece], encoding: str, length: int) -> tuple[list[Piece], int]:
    """What is left of them in so many bytes, and how many of these are left out for what nobody can tell."""
    errors = "surrogateescape" if encoding == "utf-8" else "strict"
    left: list[Piece] = []
    has_rows = False
    for piece in pieces:
        encoded = piece.text.encode(encoding, errors)
        if length >= len(encoded):
            left.append(piece)
            length -= len(encoded)
            has_rows = has_rows or (piece.is_header and bool(piece.names))
            continue
        if piece.is_header or not has_rows:
            plan.may_fail.add("*")
        if encoding != "utf-8" and length % 2:
            plan.may_fail.add("cut off")
        if Habit.TWICE in plan.habits:
            plan.may_fail.add("columns twice")
        last = next((at for at in reversed(range(len(left))) if not left[at].is_blank), None)
        row = next((at for at in reversed(range(len(left))) if left[at].has_text), None)
        is_row = row is not None and left[row].fate in {Fate.TAKEN, Fate.DROPPED}
        if row is not None and is_row and Habit.SHORT_ROWS in plan.habits:
            # What is left behind a short row may look like its rest, a line of nothing but a quote between them or not.
            left[row] = replace(left[row], fate=Fate.EITHER, may_drop=left[row].fate is Fate.DROPPED)
        rest = encoded[: max(length, 0)]
        text = (
            rest.decode(encoding, errors)
            if encoding == "utf-8"
            else rest[: len(rest) // 2 * 2].decode(encoding, "replace")
        )
        # Behind a row with a quote astray, one that is cut off behind a quote ends a text that is written as any other.
        if '"' in text and last is not None and left[last].text.count('"') % 2:
            return left, len(rest)
        if text:
            fate = Fate.EITHER if piece.ticket or piece.fate is Fate.DROPPED else Fate.NO_ROW
            may_drop = piece.may_drop or piece.fate is Fate.DROPPED or not any(map(str.isalnum, text))
            left.append(replace(piece, text=text, end="", fate=fate, may_drop=may_drop))
        return left, 0
    return left, 0


def _packed(plan: _Plan, content: bytes, members: int) -> bytes:
    ends = sorted(plan.rng.randrange(len(content) + 1) for _ in range(members - 1))
    parts = [content[one:other] for one, other in zip([0, *ends], [*ends, len(content)], strict=True)]
    return b"".join(gzip.compress(part, plan.rng.choice((1, 9)), mtime=0) for part in parts) + b"\0" * plan.rng.choice(
        (0, 512)
    )
