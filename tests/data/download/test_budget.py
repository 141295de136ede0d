from __future__ import annotations

import asyncio
import random

import pytest

from stylegan_t.data.download.budget import Budget


def test_no_more_is_out_at_a_time_than_there_is_and_all_get_theirs():
    budget, draw, out, most = Budget(100), random.Random(0), 0, 0

    async def use(amount: int) -> None:
        nonlocal out, most
        taken = await budget.take(amount)
        out += taken
        most = max(most, out)
        await asyncio.sleep(draw.uniform(0, 0.002))
        out -= taken
        budget.give_back(taken)

    async def all_of_them() -> None:
        await asyncio.gather(*(use(draw.randint(0, 100)) for _ in range(200)))

    asyncio.run(all_of_them())
    assert most <= 100 and budget.free == 100


def test_who_asks_for_more_than_all_gets_all():
    async def ask() -> int:
        return await Budget(10).take(1000)

    assert asyncio.run(ask()) == 10


def test_what_is_asked_for_first_is_given_first():
    order: list[str] = []

    async def use(budget: Budget, name: str, amount: int) -> None:
        budget.give_back(await budget.take(amount))
        order.append(name)

    async def all_of_them() -> None:
        budget = Budget(10)
        taken = await budget.take(6)
        tasks = [asyncio.create_task(use(budget, *each)) for each in (("large", 10), ("small", 1))]
        await asyncio.sleep(0)
        assert budget.take_now(1) is None, "nobody overtakes"
        budget.give_back(taken)
        await asyncio.gather(*tasks)

    asyncio.run(all_of_them())
    assert order == ["large", "small"]


@pytest.mark.parametrize("given", [False, True], ids=["still waiting", "just given"])
def test_who_is_cancelled_takes_nothing_along(given):
    async def scenario() -> int:
        budget = Budget(10)
        taken = await budget.take(10)
        waiting = asyncio.create_task(budget.take(5))
        await asyncio.sleep(0)
        if given:
            budget.give_back(taken)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        if not given:
            budget.give_back(taken)
        return budget.free

    assert asyncio.run(scenario()) == 10


def test_who_no_longer_waits_holds_nobody_up():
    async def scenario() -> int:
        budget = Budget(10)
        taken = [await budget.take(5), await budget.take(5)]
        large, small = (asyncio.create_task(budget.take(amount)) for amount in (8, 3))
        await asyncio.sleep(0)
        large.cancel()
        await asyncio.sleep(0)
        budget.give_back(taken[0])
        return await asyncio.wait_for(small, 5)

    assert asyncio.run(scenario()) == 3
