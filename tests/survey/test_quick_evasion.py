"""Evasion in the quick profile: every row is there, attacks are judged as they must be, and seeds decide everything."""

import dataclasses
import json
import math
from functools import partial

import pytest
import torch
from torch import nn

from spai_lab.attacks.evasion import deepfool
from spai_lab.metrics import Rate
from spai_lab.survey import quick_evasion_black_box
from spai_lab.survey.evasion_jobs import knowing
from spai_lab.survey.evasion_scene import (
    NEAR,
    RADII,
    Scene,
    attempted,
    least,
    near_for,
    random_signs,
    scene,
    within_radii,
)
from spai_lab.survey.headline import Headline
from spai_lab.survey.quick_evasion import CLIMBS, QUICK, ROWS
from spai_lab.survey.quick_evasion_black_box import LABELS, SCORES, SURROGATES
from spai_lab.survey.taxonomy import load_taxonomy, rows_of
from spai_lab.training import reference

EVASION = {row.id for row in rows_of(load_taxonomy(), "evasion")}
FEW = 6


@pytest.fixture(scope="module")
def few():
    return scene(0, images=FEW)


class Threshold(nn.Module):
    """Class 1 where the mean is above one half."""

    def forward(self, x):
        mean = x.flatten(1).mean(1) - 0.5
        return torch.stack([-mean, mean], dim=1)


class Moody(nn.Module):
    """Wrong at some of every eleven looks."""

    def __init__(self, wrong):
        super().__init__()
        self.wrong, self.looks = wrong, 0

    def forward(self, x):
        self.looks += 1
        wrong = self.looks % 11 < self.wrong
        return 3.0 * nn.functional.one_hot(torch.full((len(x),), int(wrong)), 2)


@pytest.fixture
def gray():
    """Images of one gray level each; the distance of each to the threshold is 28 times what it is above one half."""
    levels = torch.tensor([0.52, 0.54, 0.56, 0.58, 0.61, 0.63, 0.65])
    x = levels.view(-1, 1, 1, 1).expand(-1, 1, 28, 28).clone()
    return Scene("digits", Threshold(), x, torch.ones(7, dtype=torch.int64), 0), 28 * (levels - 0.5)


def darker(by):
    """The best attack on the threshold."""
    return lambda model, x, y, generator: ((x - by).clamp(0, 1), None)


def without_seconds(headline):
    row = headline.row
    row["details"] = {name: found for name, found in row["details"].items() if "seconds" not in name}
    return row


def close(found, wanted):
    """The same, up to the rounding of another processor."""
    numbers = (int, float)
    if isinstance(found, dict):
        return found.keys() == wanted.keys() and all(close(found[name], wanted[name]) for name in found)
    if isinstance(found, (list, tuple)):
        return len(found) == len(wanted) and all(map(close, found, wanted))
    return math.isclose(found, wanted, rel_tol=1e-4) if isinstance(found, numbers) else found == wanted


def test_every_evasion_row_of_the_taxonomy_and_no_other_is_measured():
    assert set(QUICK) == set(ROWS) == EVASION


def test_images_are_test_images_that_the_victim_reads_rightly(few):
    data = few.data
    assert all((data.x_test == image).flatten(1).all(1).any() for image in few.x)
    assert torch.equal(few.victim(few.x).argmax(1), few.y)
    assert len(few.x) == FEW
    assert not torch.equal(scene(1, images=FEW).x, few.x)


def test_fgsm_is_counted_as_by_hand(few):
    x = few.x.clone().requires_grad_()
    nn.functional.cross_entropy(few.victim(x), few.y, reduction="sum").backward()
    by_hand = {}
    for eps in RADII:
        x_adv = (few.x + eps * x.grad.sign()).clamp(0, 1)
        by_hand[f"{eps:g}"] = [int((few.victim(x_adv).argmax(1) != few.y).sum()), FEW]
    headline = ROWS["fgsm"](few)
    assert headline.details["at"] == by_hand
    assert headline.value == by_hand["0.1"][0] / FEW
    assert headline.interval == Rate(*by_hand["0.1"]).interval
    assert (headline.better, headline.trials, headline.budget) == ("higher", FEW, CLIMBS["fgsm"][2])


def test_images_outside_the_ball_do_not_count(gray):
    here, _ = gray
    inside = within_radii(here, darker, budget="none")
    outside = within_radii(here, lambda eps: darker(eps + 1e-3), budget="none")
    assert inside.details["at"] == {"0.1": [4, 7], "0.2": [7, 7]}
    assert outside.details["at"] == {"0.1": [0, 7], "0.2": [0, 7]}
    assert inside.details["random signs"] == {"0.1": [0, 7], "0.2": [0, 7]}


def test_random_signs_fill_the_ball(few):
    outcome = attempted(few, random_signs(0.1))
    far = (outcome.x_adv - few.x).abs()
    assert far.max() == pytest.approx(0.1, abs=1e-6)
    inner = (few.x > 0.1) & (few.x < 0.9)
    assert far[inner].min() == pytest.approx(0.1, abs=1e-6)


def test_least_distortions_are_those_to_a_plane(gray):
    here, distance = gray
    headline = least(here, knowing(deepfool), "l2", "some")
    assert headline.value == pytest.approx(1.02 * distance.median().item(), rel=1e-3)
    assert headline.interval[0] <= headline.value <= headline.interval[1]
    within = int((1.02 * distance <= NEAR["l2"]).sum())
    assert headline.details["within"] == [within, 7]
    assert headline.details["success"] == [7, 7]
    assert (headline.unit, headline.better) == ("L2", "lower")


def test_too_few_images_have_no_finite_interval(gray):
    here, _ = gray
    here = dataclasses.replace(here, x=here.x[:3], y=here.y[:3])
    assert least(here, knowing(deepfool), "l2", "some").interval is None


def test_black_box_attacks_count_where_they_come_near(gray):
    here, _ = gray
    near, far = (near_for(here, darker(by), 10, "labels") for by in (1.49 / 28, 1.51 / 28))
    assert near.value == 2 / 7  # the third image is 0.06 above the threshold, and 1.49 / 28 is less
    assert near.details["median distortion"] is None
    assert (far.value, far.details["success"]) == (0.0, [2, 7])


@pytest.mark.parametrize(("wrong", "hits"), [(5, 0), (6, 7)])
def test_most_looks_at_a_random_victim_decide(gray, wrong, hits):
    here, _ = gray
    here = dataclasses.replace(here, y=torch.zeros_like(here.y))
    outcome = attempted(here, darker(0.0), victim=Moody(wrong), looks=11)
    assert int(outcome.hit.sum()) == hits


@pytest.mark.parametrize("row", ["pgd", "jsma", "square", "bpda", "transfer"])
def test_the_same_seed_gives_the_same_headline(few, row):
    first, second = (without_seconds(ROWS[row](few)) for _ in range(2))
    assert close(first, second)
    assert Headline.from_row(json.loads(json.dumps(first))).value == first["value"]


def test_bpda_sees_past_what_stops_pgd(few):
    details = ROWS["bpda"](few).details
    assert details["PGD without it"]["0.2"][0] < details["at"]["0.2"][0]


@pytest.mark.parametrize(("row", "cap"), [("square", SCORES), ("nes", SCORES), ("hop_skip_jump", LABELS)])
def test_nobody_asks_more_than_the_budget_says(few, row, cap):
    headline = ROWS[row](few)
    assert headline.details["queries"] <= headline.details["most_queries"] <= cap
    assert headline.budget.startswith(f"{cap:,} queries")


def test_transfer_asks_nothing_and_says_who_reads_whose_images(few):
    details = ROWS["transfer"](few).details
    assert details["queries"] == 0
    crossed = details["made on, shown to"]
    models = [reference(name, few.data) for name in ("lenet", *SURROGATES)]
    right = sum(bool(all(model(x[None]).argmax() == y for model in models)) for x, y in zip(few.x, few.y, strict=True))
    assert {trials for row in crossed.values() for _, trials in row.values()} == {right}


def test_labels_of_test_images_do_not_reach_the_copy(few, monkeypatch):
    monkeypatch.setattr(quick_evasion_black_box, "ROUNDS", 2)
    swapped = dataclasses.replace(few, y=few.y.roll(1))
    agreed = [ROWS["substitute"](here).details["agreement with the victim"] for here in (few, swapped)]
    assert agreed[0] == agreed[1]
    assert 100 < agreed[0][0] <= agreed[0][1] == 500


def test_a_patch_is_beside_one_that_learned_nothing(few):
    headline = ROWS["patch"](few)
    others = int((few.y != 8).sum())
    for name in ("others taken for 8", "others taken for 8, gray patch"):
        hits, trials = headline.details[name]
        assert 0 <= hits <= trials == others


@pytest.mark.full
def test_the_whole_part_once():
    found = {row: measure(0) for row, measure in QUICK.items()}
    for row, headline in found.items():
        assert Headline.from_row(json.loads(json.dumps(headline.row))) == headline, row
        assert headline.trials == 64, row
        assert math.isfinite(headline.value), row
        assert headline.details["processor_seconds"] < 90, row
    at = {row: found[row].details["at"]["0.1"][0] for row in ("fgsm", "pgd", "auto_attack", "bpda", "eot", "advgan")}
    assert at["fgsm"] < at["pgd"] <= at["auto_attack"]
    assert found["bpda"].details["PGD without it"]["0.1"][0] < at["bpda"]
    assert found["eot"].details["PGD without it"]["0.1"][0] < at["eot"]
    assert found["auto_attack"].details["broken by"].get("standing", 0) == 64 - at["auto_attack"]
    for learned in ("universal_perturbation", "advgan", "substitute", "transfer"):
        details = found[learned].details
        assert details["at"]["0.2"][0] > details["random signs"]["0.2"][0], learned
    assert all(found["carlini_wagner"].value <= found[row].value for row in ("deepfool", "lbfgs"))
    ordered = sorted(("boundary", "hop_skip_jump", "zoo"), key=lambda row: found[row].details["median distortion"])
    assert found["carlini_wagner"].value < found[ordered[0]].details["median distortion"]


def test_a_row_is_measured_from_its_seed(monkeypatch):
    seen = []
    monkeypatch.setitem(ROWS, "fgsm", lambda here: seen.append((here.seed, len(here.x))))
    QUICK["fgsm"](3)
    assert seen == [(3, 64)]
    assert isinstance(QUICK["fgsm"], partial)
