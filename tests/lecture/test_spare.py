"""A kernel in reserve is handed out once, is replaced, and nobody waits for one that died."""

import asyncio
from pathlib import Path
from types import SimpleNamespace

import pytest

from spai_lab.lecture import spare
from spai_lab.lecture.spare import with_spare


class Manager:
    """What we use of jupyter_server's manager."""

    def __init__(self) -> None:
        self.started, self.alive, self.culled, self.fails = [], set(), [], False
        self.kernels: dict[str, SimpleNamespace] = {}
        self.log = SimpleNamespace(warning=lambda *_: None)

    async def start_kernel(self, **settings) -> str:
        if self.fails:
            raise OSError("no memory")
        name = f"kernel {len(self.started)}"
        self.started.append(settings)
        self.alive.add(name)
        self.kernels[name] = SimpleNamespace(is_alive=lambda: name in self.alive, last_activity=None)
        return name

    def get_kernel(self, name: str) -> SimpleNamespace:
        return self.kernels[name]

    async def cull_kernel_if_idle(self, name: str) -> None:
        self.culled.append(name)


@pytest.fixture
def manager(monkeypatch):
    monkeypatch.setattr(spare, "PAUSE", 0)
    return with_spare(Manager, "spai", Path("chapters"))()


def test_the_first_chapter_gets_the_kernel_in_reserve_and_another_is_prepared(manager):
    async def lecture():
        manager.prepare_spare()
        manager.prepare_spare()
        given = await manager.start_kernel(kernel_name="spai", path="x")
        await asyncio.sleep(0.05)
        return given

    assert asyncio.run(lecture()) == "kernel 0"
    assert manager.started == [{"kernel_name": "spai", "cwd": "chapters"}] * 2
    assert manager.get_kernel("kernel 0").last_activity is not None, "or it would be culled at once"


def test_the_next_kernel_is_prepared_after_the_chapter_that_was_opened_last(manager, monkeypatch):
    async def lecture():
        monkeypatch.setattr(spare, "PAUSE", 0.2)
        await manager.start_kernel(path="a")
        await asyncio.sleep(0.12)
        await manager.start_kernel(path="b")
        await asyncio.sleep(0.12)
        meanwhile = len(manager.started)
        await asyncio.sleep(0.3)
        return meanwhile, len(manager.started)

    assert asyncio.run(lecture()) == (2, 3)


def test_two_chapters_at_once_get_two_kernels(manager):
    async def lecture():
        manager.prepare_spare()
        return await asyncio.gather(manager.start_kernel(path="a"), manager.start_kernel(path="b"))

    assert len(set(asyncio.run(lecture()))) == 2


@pytest.mark.parametrize("trouble", ["died", "never started"])
def test_a_new_kernel_serves_where_the_one_in_reserve_does_not(manager, trouble):
    async def lecture():
        manager.fails = trouble == "never started"
        manager.prepare_spare()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        manager.fails = False
        manager.alive.clear()
        return await manager.start_kernel(path="a")

    assert asyncio.run(lecture()) in manager.alive


def test_the_kernel_in_reserve_is_not_culled_but_others_are(manager):
    async def lecture():
        manager.prepare_spare()
        reserved = await manager.spare
        await manager.cull_kernel_if_idle(reserved)
        await manager.cull_kernel_if_idle("another")
        given = await manager.start_kernel(path="a")
        await manager.cull_kernel_if_idle(given)
        return given

    assert manager.culled == [] and [asyncio.run(lecture())] == manager.culled[1:] == ["kernel 0"]
    assert manager.culled[0] == "another"
