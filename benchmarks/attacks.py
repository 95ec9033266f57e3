"""Every contest of every family: one table each."""

import dataclasses
import pkgutil
from importlib import import_module

import torch

from benchmarks import contests
from benchmarks.contest import HEAD, Contest, measure
from spai_lab.data import load


def all_contests() -> list[Contest]:
    """The contests of all modules of `benchmarks.contests`, in the order of their names."""
    modules = sorted(module.name for module in pkgutil.iter_modules(contests.__path__))
    return [contest for name in modules for contest in import_module(f"benchmarks.contests.{name}").CONTESTS]


def shortened(contest: Contest) -> Contest:
    """Just enough to see that it runs."""
    return dataclasses.replace(contest, images=2, rounds=1, memory=False)


def main(quick: bool, only: list[str] | None = None) -> None:
    """Print one table for each contest.

    Args:
        quick: do just enough to see that all of it runs.
        only: beginnings of the contests' names; all if left out.
    """
    print(f"Victim: LeNet-size network on {load().name}; {torch.get_num_threads()} threads; torch {torch.__version__}")
    for contest in all_contests():
        if only and not contest.name.lower().startswith(tuple(name.lower() for name in only)):
            continue
        contest = shortened(contest) if quick else contest
        print(f"\n{contest.name}, {contest.images} images, {contest.rounds} rounds\n{HEAD}", flush=True)
        for row in measure(contest):
            print(row, flush=True)
