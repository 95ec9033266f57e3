"""That the benchmark runs, and that its statistics are right; how long anything takes is never asserted."""

import math
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from scipy.stats import bootstrap

from benchmarks.contest import median_ratio, peak_growth


@pytest.mark.oracle
def test_the_benchmark_runs_and_every_ratio_is_a_number(root):
    answer = subprocess.run(
        [sys.executable, "-m", "benchmarks", "attacks", "--quick", "--only", "fgsm"],
        cwd=root,
        env={**os.environ, "SPAI_DATASET": "digits"},
        capture_output=True,
        encoding="utf-8",
        errors="replace",
    )
    assert answer.returncode == 0, answer.stderr
    for name in ("torchattacks", "foolbox", "ART"):
        lines = re.findall(rf"^{name} .*$", answer.stdout, re.MULTILINE)
        assert lines, answer.stdout
        for line in lines:
            median, low, high = map(float, re.search(r"(\S+) \((\S+) to (\S+)\)", line).groups())
            assert 0 < low <= median <= high < math.inf


def test_the_interval_of_the_median_ratio_is_scipys():
    generator = np.random.default_rng(1)
    theirs = generator.uniform(1, 2, 60)
    ours = theirs * generator.lognormal(0, 0.2, 60)
    median, low, high = median_ratio(ours, theirs)
    expected = bootstrap((ours / theirs,), np.median, method="percentile", random_state=2).confidence_interval
    assert median == pytest.approx(np.median(ours / theirs))
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=0.02)


def test_memory_that_is_touched_is_seen():
    def run():
        return np.ones(64 * 2**20, dtype=np.uint8).sum()

    assert 48 * 2**20 < peak_growth(run) < 200 * 2**20
