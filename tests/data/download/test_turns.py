from __future__ import annotations

import asyncio

from yarl import URL

from stylegan_t.data.download.turns import Turn, Turns


def turn(name: str, row: int = 0) -> Turn:
    return Turn(row, URL(f"http://{name}.test/{row}"))


async def names(turns: Turns, count: int) -> list[str]:
    return [(await turns.next() or turn("none")).host.removesuffix(".test") for _ in range(count)]


def test_hosts_take_turns_and_rows_of_a_host_keep_their_order():
    async def scenario() -> list[tuple[str, int]]:
        turns = Turns(10, 10)
        for row, name in enumerate("aaabbc"):
            turns.add(turn(name, row))
        taken = [await turns.next() for _ in range(6)]
        return [(each.host[0], each.row) for each in taken if each]

    assert asyncio.run(scenario()) == [("a", 0), ("b", 3), ("c", 5), ("a", 1), ("b", 4), ("a", 2)]


def test_a_host_is_left_alone_while_it_has_its_share():
    async def scenario() -> None:
        turns = Turns(10, 2)
        for name in "aaaab":
            turns.add(turn(name))
        assert await names(turns, 3) == ["a", "b", "a"]
        waiting = asyncio.create_task(turns.next())
        await asyncio.sleep(0.01)
        assert not waiting.done()
        turns.done(turn("b"))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        turns.done(turn("a"))
        assert await waiting == turn("a")

    asyncio.run(scenario())


def test_no_more_are_under_way_than_told():
    async def scenario() -> None:
        turns = Turns(2, 2)
        for name in "abc":
            turns.add(turn(name))
        assert await names(turns, 2) == ["a", "b"]
        waiting = asyncio.create_task(turns.next())
        await asyncio.sleep(0.01)
        assert not waiting.done()
        turns.done(turn("a"))
        assert await waiting == turn("c")

    asyncio.run(scenario())


def test_it_ends_when_all_are_done_and_not_before():
    async def scenario() -> None:
        turns = Turns(2, 2)
        turns.add(turn("a"))
        first = await turns.next()
        assert first
        ending = asyncio.create_task(turns.next())
        await asyncio.sleep(0.01)
        assert not ending.done(), "one is under way, and may be redirected"
        turns.add_later(turn("b"), 0.02)
        turns.done(first)
        assert await ending == turn("b")
        turns.done(turn("b"))
        assert await turns.next() is None

    asyncio.run(scenario())


def test_a_rest_holds_back_a_host_and_no_other():
    async def scenario() -> None:
        turns, clock = Turns(10, 10), asyncio.get_running_loop().time
        for name in "aab":
            turns.add(turn(name))
        began = clock()
        turns.pause("a.test", 0.05)
        turns.pause("a.test", 0.01)
        assert await names(turns, 1) == ["b"]
        assert clock() - began < 0.04
        assert await names(turns, 2) == ["a", "a"]
        assert clock() - began >= 0.05, "the longer of two rests"

    asyncio.run(scenario())
