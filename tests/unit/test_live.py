"""Followers of the changes: one reads for all, and each has everything behind his cursor once."""

import asyncio
import json
import zlib
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from http import HTTPStatus

import pytest

from consumer.api import live as live_module
from consumer.api.changes import ChangesPage
from consumer.api.limits import Rates, Turns
from consumer.api.live import Cursor, Live
from consumer.api.problems import Problem
from consumer.api.reading import Reader
from consumer.feeds.declared import packaged_feeds
from consumer.feeds.feed import Feed
from publisher.errors import DatabaseDown
from publisher.heartbeat import Pulse

FEEDS = packaged_feeds()


class Data(Reader):
    """A feed's versions, of which each has changed one ticket."""

    is_missed = False

    def __init__(self) -> None:
        self.version = 0
        self.first_known = 0
        self.is_away = False
        self.asked: Counter[str] = Counter()

    def versions(self) -> dict[str, int]:
        self.asked["versions"] += 1
        if self.is_away:
            raise DatabaseDown("postgres", "away")
        return {"inc": self.version}

    def page_of_changes(self, feed: Feed, since: int, version: int, limit: int) -> ChangesPage:
        self.asked[f"{feed.name} {since}-{version}"] += 1
        if self.is_away:
            raise DatabaseDown("postgres", "away")
        if since < self.first_known or since > version:
            raise Problem(HTTPStatus.GONE, "load it anew")
        last = min(version, since + limit)
        return ChangesPage(feed.name, since, last, version, ",".join(map(str, range(since + 1, last + 1))))


class Follower:
    """Reads what is sent to him."""

    def __init__(self, sent: AsyncGenerator[bytes]) -> None:
        self._sent = sent
        self.id = ""
        self.seen: list[int] = []
        self.kinds: list[str] = []

    async def read(self) -> None:
        async for part in self._sent:
            self.take(part.decode())

    async def read_one(self) -> None:
        self.take((await anext(self._sent)).decode())

    def take(self, part: str) -> None:
        fields = dict(line.split(": ", 1) for line in part.splitlines() if line and line[0] != ":")
        self.id = fields.get("id", self.id)
        self.kinds.append(fields.get("event", ""))
        if fields.get("event") == "changes":
            self.seen += json.loads(fields["data"])["features"]


async def until(predicate: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not predicate():  # noqa: ASYNC110 - several tasks and threads make it so
            await asyncio.sleep(0.01)


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_module, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(live_module, "AWAY_SECONDS", 0.02)


def test_two_hundred_followers_have_one_reader() -> None:
    async def scene() -> None:
        data, over = Data(), False
        live = Live(data, FEEDS)
        running = asyncio.create_task(live.run(lambda: over))
        followers = [Follower(await live.follow(Cursor(), [])) for _ in range(200)]
        reading = [asyncio.create_task(each.read()) for each in followers]
        for version in range(1, 6):
            data.version = version
            await until(lambda: all(each.seen[-1:] == [data.version] for each in followers))
        over = True
        await asyncio.gather(running, *reading)
        assert all(each.seen == [1, 2, 3, 4, 5] for each in followers)
        assert all(count == 1 for name, count in data.asked.items() if name != "versions")

    asyncio.run(scene())


def test_a_pause_ends_also_when_somebody_else_was_answered_first() -> None:
    async def scene() -> None:
        data, pulse, over = Data(), Pulse(), False
        data.is_away = data.is_missed = True
        running = asyncio.create_task(Live(data, FEEDS, pulse).run(lambda: over))
        await until(lambda: pulse.sign().pause)
        data.is_missed = False
        await until(lambda: pulse.sign().pause is None)
        over = True
        await running

    asyncio.run(scene())


def test_who_comes_back_goes_on_behind_what_he_had() -> None:
    async def scene() -> None:
        data = Data()
        data.version = 3
        live = Live(data, FEEDS)
        first = Follower(await live.follow(Cursor.read("inc:1"), ["inc"]))
        await first.read_one()
        assert first.id == "inc:1"
        await first.read_one()
        assert (first.id, first.seen) == ("inc:3", [2, 3])
        data.version = 1200
        again = Follower(await live.follow(Cursor.read(first.id), ["inc"]))
        while again.id != "inc:1200":
            live._looked_at = float("-inf")  # noqa: SLF001 - nobody looks for him here
            await live._look()  # noqa: SLF001 - as above
            await again.read_one()
        assert again.seen == list(range(4, 1201))
        assert again.kinds == ["begin", "changes", "changes", "changes"], "no event is of more than a page"

    asyncio.run(scene())


def test_what_is_not_known_any_more_is_told_before_anything_is_sent() -> None:
    async def scene() -> None:
        data = Data()
        data.version, data.first_known = 9, 5
        live = Live(data, FEEDS)
        for cursor in ("inc:4", "inc:10"):
            with pytest.raises(Problem, match="anew"):
                await live.follow(Cursor.read(cursor), [])
        await live.follow(Cursor.read("inc:5"), [])

    asyncio.run(scene())


def test_a_gap_that_comes_later_ends_the_events() -> None:
    async def scene() -> None:
        data = Data()
        live = Live(data, FEEDS)
        running = asyncio.create_task(live.run(lambda: False))
        follower = Follower(await live.follow(Cursor(), []))
        reading = asyncio.create_task(follower.read())
        await until(lambda: follower.kinds)
        data.version, data.first_known = 2, 2
        await reading
        assert follower.kinds == ["begin", "gone"]
        assert follower.id == "crq:0,inc:0", "so that he is told again when he is back"
        running.cancel()

    asyncio.run(scene())


def test_those_who_come_from_wherever_meet_at_the_next_look() -> None:
    async def scene() -> None:
        data, over = Data(), False
        data.version = 9
        live = Live(data, FEEDS)
        running = asyncio.create_task(live.run(lambda: over))
        followers = [Follower(await live.follow(Cursor.read(f"inc:{since}"), [])) for since in range(9)]
        reading = [asyncio.create_task(each.read()) for each in followers]
        await until(lambda: all(each.seen[-1:] == [9] for each in followers))
        data.asked.clear()
        data.version = 12
        await until(lambda: all(each.seen[-1:] == [12] for each in followers))
        over = True
        await asyncio.gather(running, *reading)
        assert [each.seen for each in followers] == [list(range(since + 1, 13)) for since in range(9)]
        assert {name: count for name, count in data.asked.items() if name != "versions"} == {"inc 9-12": 1}

    asyncio.run(scene())


def test_data_that_were_restored_end_the_events() -> None:
    async def scene() -> None:
        data = Data()
        data.version = 9
        live = Live(data, FEEDS)
        running = asyncio.create_task(live.run(lambda: False))
        follower = Follower(await live.follow(Cursor(), []))
        reading = asyncio.create_task(follower.read())
        await until(lambda: follower.kinds)
        data.version = 5
        await reading
        assert follower.kinds == ["begin", "gone"]
        running.cancel()

    asyncio.run(scene())


def test_a_database_that_is_away_for_a_while_costs_nothing() -> None:
    async def scene() -> None:
        data, over = Data(), False
        live = Live(data, FEEDS)
        running = asyncio.create_task(live.run(lambda: over))
        follower = Follower(await live.follow(Cursor(), []))
        reading = asyncio.create_task(follower.read())
        await until(lambda: follower.kinds)
        data.is_away = True
        data.version = 2
        looks = data.asked["versions"]
        await until(lambda: data.asked["versions"] > looks)
        data.is_away = False
        await until(lambda: follower.seen == [1, 2])
        over = True
        await asyncio.gather(running, reading)

    asyncio.run(scene())


def test_of_many_who_come_while_the_database_is_away_few_look() -> None:
    async def scene() -> None:
        data = Data()
        data.is_away = True
        live = Live(data, FEEDS)
        met = await asyncio.gather(*(live.follow(Cursor(), []) for _ in range(20)), return_exceptions=True)
        assert [type(each) for each in met] == [DatabaseDown] * 20
        assert data.asked["versions"] == 2, "the first one, and one for all who came while he looked"
        data.is_away = False
        follower = Follower(await live.follow(Cursor(), []))
        await follower.read_one()
        assert follower.kinds == ["begin"]

    asyncio.run(scene())


def test_so_many_may_follow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_module, "MAX_FOLLOWERS", 1)

    async def scene() -> None:
        live = Live(Data(), FEEDS)
        first = await live.follow(Cursor(), [])
        await anext(first)
        with pytest.raises(Problem, match="no more may"):
            await live.follow(Cursor(), [])
        await first.aclose()
        await live.follow(Cursor(), [])

    asyncio.run(scene())


@pytest.mark.parametrize("written", ["", "inc", "inc:", "inc:x", "inc:-1", "inc:1,", "inc:1;crq:2", "inc:1\nid: x"])
def test_what_is_no_cursor_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match="no place to go on from"):
        Cursor.read(written)


def test_a_cursor_is_written_as_it_is_read() -> None:
    assert str(Cursor.read("inc:12,crq:7")) == "crq:7,inc:12"


def test_no_turn_in_time_is_told_and_nothing_stays_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consumer.api.limits.WAIT_SECONDS", 0.05)

    async def scene() -> None:
        turns, go = Turns(1), asyncio.Event()
        loop = asyncio.get_running_loop()
        taken = asyncio.create_task(turns.take(lambda: asyncio.run_coroutine_threadsafe(go.wait(), loop).result()))
        await asyncio.sleep(0)
        with pytest.raises(Problem, match="all 1 connections") as told:
            await turns.take(int)
        assert (told.value.status, told.value.headers) == (503, {"Retry-After": "2"})
        go.set()
        await taken
        assert await turns.take(int) == 0
        with pytest.raises(ZeroDivisionError):
            await turns.take(lambda: 1 // 0)
        assert await turns.take(int) == 0

    asyncio.run(scene())


def test_each_who_asks_has_a_rate_of_his_own() -> None:
    now = 0.0
    rates = Rates(2, lambda: now)
    for _ in range(4):
        rates.count("one")
    with pytest.raises(Problem, match="more than 2 requests a second") as told:
        rates.count("one")
    assert (told.value.status, told.value.headers) == (429, {"Retry-After": "1"})
    rates.count("another")
    now = 0.5
    rates.count("one")
    with pytest.raises(Problem):
        rates.count("one")


def test_a_packed_stream_is_the_plain_one() -> None:
    async def scene() -> None:
        data, over = Data(), False
        live = Live(data, FEEDS)
        running = asyncio.create_task(live.run(lambda: over))
        sent: dict[bool, list[bytes]] = {True: [], False: []}

        async def read(following: AsyncGenerator[bytes], parts: list[bytes]) -> None:
            async for part in following:
                parts.append(part)  # noqa: PERF401 - while it comes

        followings = {is_packed: await live.follow(Cursor(), [], is_packed=is_packed) for is_packed in sent}
        reading = [asyncio.create_task(read(following, sent[each])) for each, following in followings.items()]
        for parts, version in enumerate((1, 3), 1):
            await until(lambda so_many=parts: all(len(each) == so_many for each in sent.values()))  # type: ignore[misc]
            data.version = version
        await until(lambda: all(len(each) == 3 for each in sent.values()))
        over = True
        await asyncio.gather(running, *reading)
        unpacking = zlib.decompressobj(16 + zlib.MAX_WBITS)
        assert [unpacking.decompress(part) for part in sent[True]] == sent[False]

    asyncio.run(scene())
