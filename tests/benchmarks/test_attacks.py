"""That the benchmark runs, and that its statistics are right; how long anything takes is never asserted."""

import math
import os
import re
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from scipy.stats import bootstrap

from benchmarks.attacks import all_contests
from benchmarks.contest import median_ratio
from spai_lab.survey.taxonomy import load_taxonomy, rows_of

WITHOUT_A_CONTEST = {
    "advgan": "no peer has it",
    "substitute": "no peer trains the substitute; ART's copycat models steal, which is another row",
}


def ratios(root, *arguments: str) -> dict[str, int]:
    """Runs the benchmark and reads its tables: how often each competitor's name heads a sound line."""
    answer = subprocess.run(
        [sys.executable, "-m", "benchmarks", "attacks", "--quick", *arguments],
        cwd=root,
        env={**os.environ, "SPAI_DATASET": "digits"},
        capture_output=True,
        encoding="utf-8",
        errors="replace",
    )
    assert answer.returncode == 0, answer.stderr
    lines = re.findall(r"^(\w.*?)  +.* (\S+) \((\S+) to (\S+)\) *$", answer.stdout, re.MULTILINE)
    for _, *numbers in lines:
        median, low, high = map(float, numbers)
        assert 0 < low <= median <= high < math.inf
    return Counter(name for name, *_ in lines)


@pytest.mark.oracle
def test_the_benchmark_runs_and_every_ratio_is_a_number(root):
    assert ratios(root, "--only", "fgsm") == {"torchattacks": 2, "foolbox": 2, "ART": 2}


@pytest.mark.full
@pytest.mark.oracle
def test_every_contest_runs_and_every_peer_has_its_line(root):
    """But AutoAttack's, which takes minutes on two images too; its oracle test runs both competitors with less."""
    contests = [contest for contest in all_contests() if contest.name != "AutoAttack"]
    expected = Counter(name for contest in contests for name in contest.competitors if name != "ours")
    assert ratios(root, "--only", *{contest.name for contest in contests}) == expected


def test_every_evasion_attack_of_the_survey_has_a_contest():
    """Its name begins with the method's: the row's id, its name, or the abbreviation in parentheses."""
    contests = [contest.name.lower() for contest in all_contests()]
    assert all(next(iter(contest.competitors)) == "ours" for contest in all_contests())
    missing = set()
    for row in rows_of(load_taxonomy(), "evasion"):
        names = (row.id, row.name.split(" (")[0], *re.findall(r"\((\S+?)\)", row.name))
        if not any(contest.startswith(tuple(name.lower() for name in names)) for contest in contests):
            missing.add(row.id)
    assert missing == set(WITHOUT_A_CONTEST)


def test_the_interval_of_the_median_ratio_is_scipys():
    generator = np.random.default_rng(1)
    theirs = generator.uniform(1, 2, 60)
    ours = theirs * generator.lognormal(0, 0.2, 60)
    median, low, high = median_ratio(ours, theirs)
    expected = bootstrap((ours / theirs,), np.median, method="percentile", random_state=2).confidence_interval
    assert median == pytest.approx(np.median(ours / theirs))
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=0.02)


TOUCHING = """
import time
import numpy as np
from benchmarks.contest import peak_growth

def run():
    touched = np.ones(64 * 2**20, dtype=np.uint8)
    time.sleep(0.5)  # long enough for the watching thread to have its turn on a busy machine
    return touched

print(peak_growth(run))
"""


def test_memory_that_is_touched_is_seen(root):
    """In a process that has nothing to give back meanwhile."""
    answer = subprocess.run([sys.executable, "-c", TOUCHING], cwd=root, capture_output=True, text=True, check=True)
    assert 48 * 2**20 < int(answer.stdout) < 200 * 2**20
