"""What a geocoder can be asked about a ticket's `location_name`: the words that name the place. Pure.

A location comes from the network's inventory: codes of boxes, sites and doors around the name of a place, or no name at
all. The tables below are the grammar; docs/geocoding.md shows it by examples. In doubt a word stays: with a word too
many the geocoder finds nothing and the ticket stays at its cluster, with one too few it finds another place.
"""

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

MAX_CHARS = 120


class Number(Enum):
    """How a word goes with the number behind it; one that is joined to it (`OLT03`, `OLT-03-2`) always goes along."""

    TAKEN = auto()
    """The word goes, and a number behind a space too."""
    LONG = auto()
    """The word goes, but behind a space only three digits or more: `FTTH 14 Riverside` is 14 Riverside."""
    NEEDED = auto()
    """They go together or not at all: without a number the word may belong to a name."""
    FIRST = auto()
    """As NEEDED, and not behind a name, unless it says "No": `Bruce House 4` stays, `House No. 4` goes."""
    MODEL = auto()
    """As NEEDED, and what is behind it may be another code: `Huawei MA5800` goes, `Huawei Offices` stays."""


@dataclass(frozen=True, slots=True)
class WordRule:
    """Words, in any case, that say which box, site or door, not which place."""

    strips: str
    words: frozenset[str]
    number: Number
    why: str


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


TOWN_CODES = _words("KE NBO NRB NBI NAI KBU MSA MBA KSM NKR NKU NAK ELD THK MKS KJD")

TOWNS = TOWN_CODES | _words(
    "BUSIA ELDORET EMBU GARISSA ITEN KAJIADO KAKAMEGA KERICHO KIAMBU KILIFI KISII KISUMU KITALE LAMU MACHAKOS MALABA"
    " MALINDI MERU MOMBASA NAIROBI NAIVASHA NAKURU NAMANGA NANYUKI NAROK NYAHURURU NYERI THIKA VOI WEBUYE"
)
"""Behind a town's code and before a word for a road they are the road's other end: Msa-Malindi Rd."""

WORD_RULES = (
    WordRule(
        "equipment",
        _words(
            "OLT FAT FDT FDB FDH FDP ODF ODB ODC ODN OTB ATB SPL SPLT SPLITTER PON ONT ONU CPE MSAN DSLAM VLAN MDU SDU"
            " POP BTS RRU ENB ENODEB GNODEB HWTC ZTEG FHTT ALCL P/L M/H J/B BLK BLD BLDG"
        ),
        Number.TAKEN,
        "the box, joint, pole or building that serves the place, and the makers in serial numbers: on no map",
    ),
    WordRule(
        "technology",
        _words("GPON EPON XGPON XGSPON FTTH FTTB FTTC FTTX PTMP PTP PPPOE LTE 3G 4G 5G LAN WAN INC"),
        Number.LONG,
        "how the place is served",
    ),
    WordRule(
        "maker",
        _words("HUAWEI MIKROTIK ZTE FIBERHOME UBIQUITI CISCO NOKIA"),
        Number.MODEL,
        "with a device behind it: else it may be an office that people know",
    ),
    WordRule(
        "town code",
        TOWN_CODES,
        Number.LONG,
        "towns and sites in the provider's spelling",
    ),
    WordRule(
        "numbered part",
        _words(
            "PORT SLOT CARD FRAME SHELF RACK CORE CABLE FIBRE FIBER CABINET CAB NODE POLE MANHOLE HANDHOLE JOINT"
            " CLOSURE SPLICE SITE BLOCK BOX MH HH JB JC CTO NAP SWITCH AP CCR CRS MA"
        ),
        Number.NEEDED,
        "Port 12 and Block C are parts of the network and of an estate, Port Reitz and AP Camp are places",
    ),
    WordRule(
        "door",
        _words("HSE H/NO DOOR FLAT APT UNIT ROOM RM FLOOR FLR PLOT SHOP LR L/R L.R"),
        Number.NEEDED,
        "no map of a Kenyan estate knows doors: asked for one, a geocoder misses the estate as well",
    ),
    WordRule(
        "building",
        _words("HOUSE BUILDING APARTMENT APARTMENTS APTS"),
        Number.FIRST,
        "a door as well, but many a building is named so",
    ),
    WordRule(
        "customer",
        _words("ACC ACCT A/C ACCOUNT CUST CUSTOMER CLIENT CID CIF PO P.O TEL PHONE MSISDN S/N SN SERIAL IP MAC"),
        Number.NEEDED,
        "whose line it is: no place, and nothing to tell a geocoder",
    ),
)

RELATIONS = _words("NEAR OPP OPPOSITE BEHIND OFF") | {"NEXT TO"}
"""They go and part the name: the geocoder is asked for street and landmark, as with a comma."""

COUNTERS = _words("NO NUMBER NUM ID BOX")
"""They go with the number of a word that goes: FAT No. 12, P.O. Box 1234."""

HOMES = _words("APARTMENT APARTMENTS APTS FLATS VILLAS COURT")
"""A letter and a number that are joined are a door behind them: Sunrise Apts B-12."""

PLACEHOLDERS = _words(
    "UNKNOWN UNDEFINED UNSPECIFIED NULL NONE NIL NAN NA N/A TBA TBD TEST TESTING DUMMY LOCATION ADDRESS"
)
"""What a form or an export writes for nothing. They go where no other word is beside them, and name nothing."""

NUMBERED_PLACES = _words("PHASE PH ZONE SECTION SECTOR AREA STAGE GATE WARD KM MILE")
"""Their number belongs to the name in any form: Phase 02, Zone A1, Sector 3A."""

ROADS = _words("ROAD RD HIGHWAY HWY SUPERHIGHWAY BYPASS JUNCTION")
"""Before them a code is a road's, A104 Road, and a town's code the town, MSA Rd."""

BUILDINGS = _words("MALL PLACE PLAZA CENTRE CENTER TOWER TOWERS HOUSE BUILDING COURT ESTATE CLUB AVENUE") | ROADS
"""Letters before them are a name: T-Mall, KCB Towers."""

NAMES_LIKE_CODES = _words(
    "ABC ACK AIC BBS CBD EPZ G4S GSU GTC HUB ICD K1 KBC KCA KCB KMC KNH KPA KPC KU KWS MKU MOI NHC NSSF SDA SGR"
    " TRM UN UON VOI"
)
"""Places and landmarks that look like a code."""

PARTS_LIKE_CODES = _words("II III IV VI VII VIII IX AVE BLVD CT DR EST HWY KWA LN MT NEW OLD PH RD ST")
"""Parts of names that look like a code; alone they name nothing."""

GENERIC = frozenset().union(
    *(rule.words for rule in WORD_RULES),
    COUNTERS,
    RELATIONS,
    BUILDINGS,
    PARTS_LIKE_CODES,
    _words("PHASE ZONE SECTOR GATE STREET DRIVE LANE CLOSE CRESCENT FLATS KM AND OF TO AT IN"),
)
"""With nothing but these and numbers left, no place is named: Phase 2, Road, Gate 14."""

_RULE_OF = {word: rule for rule in WORD_RULES for word in rule.words}
_MAKERS = frozenset().union(*(rule.words for rule in WORD_RULES if rule.number is Number.MODEL))
_KNOWN = (GENERIC - _RULE_OF.keys()) | NAMES_LIKE_CODES

_URL = r"(?:https?:|www\.|(?:maps\.app\.)?goo\.gl/|(?:maps\.)?google\.com/)\S+"
_TOKEN = re.compile(
    r"(?<![^\W_])(?:[0-9a-f]{2}[:-]){5}[0-9a-f]{2}(?![^\W_])"
    rf"|(?<![^\W_]){_URL}"
    r"|(?<![^\W_])(?:p/l|l/r|l\.r|p\.o|a/c|m/h|j/b|h/no|s/n|n/a|next +to)(?![^\W\d_])"
    r"|[0-9]+(?:[./:][0-9]+)+"
    r"|[^\W_]+(?:['\u0300-\u036f]+[^\W_]+)*[\u0300-\u036f]*",
    re.IGNORECASE,
)
_SMALL_NUMBER = re.compile(r"[1-9][0-9]{0,2}[A-Za-z]?")
_ORDINAL = re.compile(r"[0-9]{1,2}(?:st|nd|rd|th)", re.IGNORECASE)
_WORD_AND_NUMBER = re.compile(r"([^\W\d_]{2,})([0-9]+)[A-Za-z]?")
_VOWEL = re.compile("[AEIOU]|[^\\x00-\\x7f]", re.IGNORECASE)
_SPELLINGS = str.maketrans(
    dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2212", "-") | dict.fromkeys("\u2018\u2019\u02bc`", "'")
)
_URL_OR_SERIAL = re.compile(rf"{_URL}|(?:HWTC|ZTEG|FHTT|ALCL)[0-9A-F]{{8}}", re.IGNORECASE)
_SHORT = 4
_JOINS = frozenset("-_/\\:.#")
_BRACKETS = frozenset("()[]{}<>")
_COMMAS = frozenset(",;|@\r\n\t")


@dataclass(slots=True)
class _Token:
    """A word or number, and what stands before it."""

    text: str
    before: str
    kept: bool = True

    @property
    def upper(self) -> str:
        return self.text.upper()

    @property
    def has_digit(self) -> bool:
        return any(char in "0123456789" for char in self.text)

    @property
    def is_letter(self) -> bool:
        return len(self.text) == 1 and self.text.isalpha()

    @property
    def is_word(self) -> bool:
        return len(self.text) > 1 and not self.has_digit

    @property
    def joins(self) -> bool:
        """Without a space to what is before it."""
        return _JOINS.issuperset(self.before)

    @property
    def parts(self) -> bool:
        """Begins another part, as behind a comma."""
        return self.parts_firmly or not _BRACKETS.isdisjoint(self.before)

    @property
    def parts_firmly(self) -> bool:
        """Also when what was between the brackets is gone, or they are its own."""
        return not _COMMAS.isdisjoint(self.before) or ("-" in self.before and not self.joins)


_EDGE = _Token("", ",", kept=False)
"""Before the first token and behind the last."""


@dataclass(frozen=True, slots=True)
class FormRule:
    """A form with digits that belongs to a name, if what stands around it allows; its group stays, or all of it."""

    form: re.Pattern[str]
    stays: Callable[[_Token, _Token, _Token], bool]
    """Of the token, the one before and the one behind."""
    why: str


FORMS_THAT_STAY = (
    FormRule(
        re.compile(r"\w{1,3}"),
        lambda token, before, _: before.kept and before.upper in NUMBERED_PLACES and not token.parts,
        "the number of a NUMBERED_PLACE: Phase 02, Sector 3A, Gate B2",
    ),
    FormRule(
        re.compile(r"[1-9][0-9]?[A-Za-z]?"),
        lambda *_: True,
        "Umoja 1, Kahawa 44, Mathare 4A, 14 Riverside",
    ),
    FormRule(
        re.compile(r"[1-9][0-9]{2}[A-Za-z]?"),
        lambda token, *_: not token.joins,
        "Ngong Road 316; joined, Kilimani-316, it numbers a site",
    ),
    FormRule(
        re.compile(r"(?!1/(?:2|4|8|16|32|64|128)$)[1-9][0-9]{0,2}/[1-9][0-9]{0,2}"),
        lambda token, before, _: before.kept and not token.parts,
        "Githurai 44/45, behind a name; 1/16 is a splitter's ratio",
    ),
    FormRule(_ORDINAL, lambda *_: True, "1st Parklands Avenue"),
    FormRule(
        re.compile(r"[A-Za-z][0-9]{1,4}"),
        lambda _, __, behind: behind.upper in ROADS and not behind.parts,
        "A104 Road; else a port, a splitter's output or a door: P4, S1, C3",
    ),
    FormRule(
        re.compile(r"(?:[^\W\d_]{4,}|ph|km)[1-9][0-9]?[A-Za-z]?", re.IGNORECASE),
        lambda token, *_: bool(_VOWEL.search(token.text)) or token.upper.startswith(("PH", "KM")),
        "Umoja1, PH8: a name and its number with the space forgotten",
    ),
    FormRule(
        re.compile(r"([^\W\d_]{4,})[0-9]{1,3}"),
        lambda token, *_: bool(_VOWEL.search(token.text)),
        "KILIMANI01, KAREN012: the name of a site that was numbered, without the number",
    ),
)
"""All else that has a digit goes: ports 0/2/11, ratios 1:8, addresses, serials, numbers that are padded or have four
digits or more (sites, customers, phones)."""


def place_name(location_name: str) -> str | None:
    """The words of a location that name a place, in their order; None where none does."""
    name = location_name
    # What is left after one sweep can be a code once its neighbours are gone; it has MAX_CHARS at most from then on.
    while (shorter := _sweep(name)) != name:
        name = shorter
    return name or None


def _sweep(text: str) -> str:
    tokens = _read(text)
    for strip in (_strip_words, _strip_forms, _strip_short_codes, _strip_orphans):
        strip(tokens)
    return _write(tokens) if _names_a_place(tokens) else ""


def _read(text: str) -> list[_Token]:
    text = unicodedata.normalize("NFC", text).translate(_SPELLINGS)
    tokens, end = [], 0
    for match in _TOKEN.finditer(text):
        tokens.append(_Token(" ".join(match[0].split()), text[end : match.start()]))
        end = match.end()
    return tokens


def _around(tokens: list[_Token], at: int) -> tuple[_Token, _Token]:
    return tokens[at - 1] if at else _EDGE, tokens[at + 1] if at + 1 < len(tokens) else _EDGE


def _strip_words(tokens: list[_Token]) -> None:
    """The words of WORD_RULES with their numbers, doors of HOMES, lone PLACEHOLDERS, URLs, serials, and RELATIONS."""
    at = 0
    while at < len(tokens):
        end = _end_of_code(tokens, at)
        for token in tokens[at:end]:
            token.kept = False
        at = max(end, at + 1)


def _end_of_code(tokens: list[_Token], at: int) -> int:
    word = tokens[at].upper
    before, behind = _around(tokens, at)
    is_alone = (not at or tokens[at].parts) and behind.parts
    if word in RELATIONS or (word in PLACEHOLDERS and is_alone) or _URL_OR_SERIAL.fullmatch(tokens[at].text):
        return at + 1
    if tokens[at].is_letter and before.upper in HOMES and behind.joins and behind.has_digit:
        return _end_of_numbers(tokens, at + 1)
    compound = _WORD_AND_NUMBER.fullmatch(tokens[at].text)
    if compound and compound[1].upper() in _RULE_OF:
        return _end_of_numbers(tokens, at + 1)
    rule = _RULE_OF.get(word)
    if rule is None or (rule.number is Number.LONG and _begins_road(tokens, at)):
        return at
    number_at = at + 1
    while number_at < len(tokens) and tokens[number_at].upper in COUNTERS and not tokens[number_at].parts:
        number_at += 1
    if rule.number is Number.FIRST and number_at == at + 1 and before.kept and not tokens[at].parts:
        return at
    if _is_number_of_code(tokens, number_at) and (
        rule.number is not Number.LONG or number_at > at + 1 or _is_long(tokens[number_at])
    ):
        return _end_of_numbers(tokens, number_at + 1)
    if rule.number is Number.MODEL:
        return _end_of_model(tokens, number_at) or at
    return at if rule.number in {Number.NEEDED, Number.FIRST} else at + 1


def _end_of_model(tokens: list[_Token], at: int) -> int:
    """Behind the code that begins there; 0 where none does."""
    if at >= len(tokens) or tokens[at].parts or tokens[at].upper in RELATIONS | _MAKERS:
        return 0
    end = _end_of_code(tokens, at)
    if end > at:
        return end
    is_code = tokens[at].has_digit and not _what_stays(tokens[at], *_around(tokens, at))
    return _end_of_numbers(tokens, at + 1) if is_code else 0


def _begins_road(tokens: list[_Token], at: int) -> bool:
    """As in MSA Rd and in Msa-Malindi Rd."""
    behind = _around(tokens, at)[1]
    if behind.before == "-" and behind.upper in TOWNS:
        road = _around(tokens, at + 1)[1]
        return road.upper in ROADS and road.before == " "
    return behind.upper in ROADS and not behind.parts


def _is_long(token: _Token) -> bool:
    return sum(map(str.isdigit, token.text)) > 2  # noqa: PLR2004 - as Number.LONG says


def _end_of_numbers(tokens: list[_Token], at: int) -> int:
    while at < len(tokens) and tokens[at].joins and _is_number_of_code(tokens, at):
        at += 1
    return at


def _is_number_of_code(tokens: list[_Token], at: int) -> bool:
    """Whether it can number a word of WORD_RULES: 12, 0/2/11, C3, 3A, A; but not the letter of T-Mall."""
    if at >= len(tokens):
        return False
    token, behind = tokens[at], _around(tokens, at)[1]
    if token.parts and not token.before.isspace() and token.before.strip() != "-":
        return False
    if token.is_letter:
        return not ((behind.joins and behind.is_word) or (behind.upper in BUILDINGS and not behind.parts))
    if token.upper in NAMES_LIKE_CODES or _ORDINAL.fullmatch(token.text):
        return False
    return token.has_digit and not _WORD_AND_NUMBER.fullmatch(token.text)


def _strip_forms(tokens: list[_Token]) -> None:
    """What has a digit and none of the FORMS_THAT_STAY."""
    for at, token in enumerate(tokens):
        if token.kept and token.has_digit and token.upper not in NAMES_LIKE_CODES:
            before, behind = _around(tokens, at)
            if _ORDINAL.fullmatch(token.text) and behind.upper in {"FLOOR", "FLR"}:
                token.kept = behind.kept = False
            else:
                token.text = _what_stays(token, before, behind)
                token.kept = token.text != ""


def _what_stays(token: _Token, before: _Token, behind: _Token) -> str:
    for rule in FORMS_THAT_STAY:
        match = rule.form.fullmatch(token.text)
        if match and rule.stays(token, before, behind):
            return match[match.lastindex or 0]
    return ""


def _strip_short_codes(tokens: list[_Token]) -> None:
    """Letters that are joined to a code or a number and look like one, with the numbers joined to them."""
    for at, token in enumerate(tokens):
        before, behind = _around(tokens, at)
        if token.kept and token.joins and at and not before.kept and before.upper not in RELATIONS:
            token.kept = not (_SMALL_NUMBER.fullmatch(token.text) or _is_loose_code(tokens, at))
        elif token.kept and behind.joins and _SMALL_NUMBER.fullmatch(behind.text):
            token.kept = not _is_loose_code(tokens, at)
    for at in range(len(tokens) - 2, -1, -1):
        token, behind = tokens[at], tokens[at + 1]
        if token.kept and behind.joins and not behind.kept:
            token.kept = not _is_loose_code(tokens, at)


def _is_loose_code(tokens: list[_Token], at: int) -> bool:
    token = tokens[at]
    before, behind = _around(tokens, at)
    beside_name = (token.joins and _is_name(before)) or (behind.joins and _is_name(behind))
    return _looks_like_code(token) and not (beside_name and _VOWEL.search(token.text))


def _is_name(token: _Token) -> bool:
    return token.kept and token.is_word and not _looks_like_code(token)


def _looks_like_code(token: _Token) -> bool:
    """Two or three capitals, or four without a vowel: QOA, WSTL."""
    if not token.is_word or token.upper in _KNOWN:
        return False
    length = len(token.text)
    return token.text.isupper() and (length < _SHORT or (length == _SHORT and not _VOWEL.search(token.text)))


def _strip_orphans(tokens: list[_Token]) -> None:
    """Numbers and letters with no word beside them that they could belong to."""
    for at, token in enumerate(tokens):
        if not token.kept or token.is_word or token.upper in NAMES_LIKE_CODES:
            continue
        before, behind = _around(tokens, at)
        follows = before.kept and not token.parts
        leads = behind.kept and not behind.parts and not behind.has_digit
        if token.is_letter:
            leads = leads and (behind.joins or behind.before.strip() in {".", "&"} or behind.upper in BUILDINGS)
        token.kept = follows or leads or (token.has_digit and _WORD_AND_NUMBER.fullmatch(token.text) is not None)


def _names_a_place(tokens: list[_Token]) -> bool:
    kept = [token for token in tokens if token.kept]
    return any(_is_naming(token, _around(kept, at)[1]) for at, token in enumerate(kept))


def _is_naming(token: _Token, behind: _Token) -> bool:
    upper = token.upper
    if upper in NAMES_LIKE_CODES:
        return True
    if compound := _WORD_AND_NUMBER.fullmatch(token.text):
        return compound[1].upper() not in GENERIC
    if _ORDINAL.fullmatch(token.text):
        return behind.is_word and not behind.parts
    if token.is_letter or upper in TOWN_CODES or _looks_like_code(token):
        return behind.upper in BUILDINGS and not behind.parts
    if token.has_digit or upper in GENERIC or upper in PLACEHOLDERS:
        return False
    return len(upper) > _SHORT or bool(_VOWEL.search(token.text))


def _write(tokens: list[_Token]) -> str:
    """As it was written, less what went, up to MAX_CHARS."""
    name, last, since = "", _EDGE, list[_Token]()
    for token, is_coded in zip(tokens, _joined_to_codes(tokens), strict=True):
        since.append(token)
        if not token.kept:
            continue
        longer = name + (_between(last, since, is_coded) if name else "") + token.text
        if len(longer) > MAX_CHARS:
            break
        name, last, since = longer, token, []
    return name


def _between(last: _Token, since: list[_Token], is_coded: bool) -> str:
    if len(since) > 1:
        return ", " if any(token.parts_firmly or token.upper in RELATIONS for token in since) else " "
    token, mark = since[0], since[0].before.strip()
    if token.parts:
        return ", "
    if mark == "-":
        # NBO-OLT-01-Mwiki-Phase-2 has hyphens for spaces; Mugumu-ini and T-Mall have them.
        return " " if is_coded and not last.is_letter else "-"
    return token.before if token.before in {"&", " & "} else {"/": "/", ".": ". "}.get(mark, " ")


def _joined_to_codes(tokens: list[_Token]) -> list[bool]:
    """For each token whether it is joined, directly or by others, to one that goes."""
    chains: list[list[_Token]] = []
    for token in tokens:
        if chains and token.joins:
            chains[-1].append(token)
        else:
            chains.append([token])
    return [is_coded for chain in chains for is_coded in [not all(token.kept for token in chain)] * len(chain)]
