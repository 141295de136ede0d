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


def test_what_is_tried_again_comes_first():
    async def scenario() -> list[int]:
        turns = Turns(10, 10)
        turns.add(turn("a", 1))
        turns.add(turn("a", 2))
        turns.add_later(turn("a", 0), 0)
        return [each.row for each in [await turns.next() for _ in range(3)] if each]

    assert asyncio.run(scenario()) == [0, 1, 2]


async def most_at_once(turns: Turns) -> int:
    """How many requests to a host of many that wait are given out."""
    taken = []
    while True:
        waiting = asyncio.create_task(turns.next())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        if not waiting.done():
            break
        taken.append(waiting.result())
    waiting.cancel()
    for each in taken:
        turns.add(each)
        turns.done(each)
    return len(taken)


def test_after_each_rest_a_host_gets_half_as_much_at_a_time_until_it_gives_what_it_is_asked_for():
    async def rested(turns: Turns) -> int:
        assert turns.pause("a.test", 0.001)
        assert not turns.pause("a.test", 0.002), "one rest, however many hear of it"
        turns.relax("a.test")  # this answer was under way before
        await asyncio.sleep(0.01)
        return await most_at_once(turns)

    async def scenario() -> None:
        turns = Turns(100, 8)
        for row in range(20):
            turns.add(turn("a", row))
        assert await most_at_once(turns) == 8
        assert [await rested(turns) for _ in range(4)] == [4, 2, 1, 1]
        seen = []
        for _ in range(9):
            turns.relax("a.test")
            seen.append(await most_at_once(turns))
        assert seen == [2, 3, 4, 5, 6, 7, 8, 8, 8]

    asyncio.run(scenario())
