"""Where a system has fewer limits the arena still ends in time, and says which limits are not there."""

import os
import signal
import sys

import psutil
import pytest

from spai_lab.arena import arena as entrance
from spai_lab.arena import limits, processes
from spai_lab.arena.arena import arena_attack
from spai_lab.arena.keeper import Keeper
from spai_lab.arena.submission import Budget

QUIET = {"data": "digits", "images": 4, "seed": 0, "against": ["no defense"], "progress": False}
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the nursery is for Linux")


def never_ends(model, x, y, eps):
    while True:
        x = x + 0


@pytest.fixture
def bare(monkeypatch):
    """A system that copies no processes, knows no groups and has no limits of resources, such as Windows."""
    monkeypatch.delattr(os, "killpg", raising=False)
    monkeypatch.delattr(os, "fork", raising=False)
    monkeypatch.setitem(sys.modules, "resource", None)


def test_without_forks_groups_and_resources_time_is_limited_and_the_page_says_what_is_not(bare):
    result = arena_attack(never_ends, budget=Budget(seconds=1.0), **QUIET)
    assert [finding.kind for finding in result.found] == ["slow", "not limited here"]
    assert "This system does not limit memory or limit the size of files or end what" in repr(result)
    assert "a defense is judged by itself" in repr(result)
    assert result.score is None


def test_a_process_without_limits_of_resources_runs_on(bare):
    limits.limit(100)
    assert limits.missing() == (limits.MEMORY, limits.FILES, limits.GROUPS, limits.ORPHANS, limits.TWINS)


def test_a_system_without_copies_still_limits_what_it_can(monkeypatch):
    monkeypatch.setattr(limits.sys, "platform", "darwin")
    assert limits.missing()[0] == limits.MEMORY
    assert limits.GROUPS not in limits.missing() or os.name != "posix"


@linux
def test_on_linux_nothing_is_missing():
    assert limits.missing() == ()
    assert entrance.missing() == ()


@linux
def test_a_nursery_that_somebody_ended_is_replaced():
    def answered():
        with Keeper(500) as keeper:
            keeper.begin("attack", "def f(model, x, y): pass", "f")
            keeper.expect("ready", seconds=60, doing="to begin")
            return keeper.twin is not None

    def nurseries():
        running = [each for each in psutil.Process().children() if each.status() != psutil.STATUS_ZOMBIE]
        return [each for each in running if "spai_lab.arena.nursery" in each.cmdline()]

    assert answered()
    (first,) = nurseries()
    os.kill(first.pid, signal.SIGKILL)
    assert answered()
    assert first.pid not in [each.pid for each in nurseries()]


@linux
def test_without_a_nursery_a_process_is_started_anew(monkeypatch):
    def refused(paths):
        raise OSError("no nursery")

    refused.cache_clear = lambda: None
    monkeypatch.setattr(processes, "nursery", refused)
    with Keeper(500) as keeper:
        keeper.begin("attack", "def f(model, x, y): pass", "f")
        keeper.expect("ready", seconds=60, doing="to begin")
        assert keeper.twin is None
        assert isinstance(keeper.process, processes.Started)
