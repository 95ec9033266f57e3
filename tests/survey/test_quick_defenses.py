"""The quick survey of defenses: six attacks each, the adaptive one among them, and an image counts if it stands all."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from scipy.stats import binom, norm
from torch import nn

from spai_lab.attacks.evasion import auto_attack, fab, square
from spai_lab.data import load
from spai_lab.defenses.evasion.detection import scored, threshold_at
from spai_lab.metrics import Rate
from spai_lab.survey import detection_jobs, quick_training
from spai_lab.survey.defense_attacks import adaptive, asking, climbing, nearest
from spai_lab.survey.defense_headlines import certified_headline, detector_headline, robust_headline, survived
from spai_lab.survey.defense_models import alike, seeded
from spai_lab.survey.detection_jobs import dimensioned, squeezed
from spai_lab.survey.quick_certificates import BETWEEN_LINES, SIGMA, Vote, proven, smoothing
from spai_lab.survey.quick_certificates import QUICK as CERTIFICATES
from spai_lab.survey.quick_defenses import QUICK
from spai_lab.survey.quick_detectors import DETECTINGS, detected
from spai_lab.survey.quick_judging import BUDGETS, IMAGES, SIX, Ball, attacked, images, standing, undefended
from spai_lab.survey.quick_masking import MASKINGS, masked
from spai_lab.survey.quick_training import RECIPES, robustly, trained
from spai_lab.survey.taxonomy import load_taxonomy, rows_of
from spai_lab.threat import norms
from spai_lab.training import reference

FALSE_ALARM = 1e-6
FEW = 8


@pytest.fixture
def brief(monkeypatch):
    """Small budgets for the six attacks on a trained network."""
    short = {
        "Square": asking(square, queries=50),
        "FAB": nearest(fab, norm="linf", steps=3),
        "AutoAttack": climbing(auto_attack, steps=5, queries=50),
        "adaptive": partial(adaptive, steps=10),
    }
    monkeypatch.setitem(SIX, "trained", SIX["trained"] | short)


def mask(stands: str) -> torch.Tensor:
    return torch.tensor([mark == "1" for mark in stands])


def check(headline, trials: int) -> None:
    """What holds of every headline of a defense."""
    assert headline.trials == trials and 0 <= headline.value <= 1
    assert headline.interval[0] <= headline.value <= headline.interval[1]
    attacks = headline.details["attacks"]
    assert len(attacks) == 6 and attacks.keys() & {"adaptive", "tailored"}
    for hits, of in (headline.details["clean"], headline.details["undefended"], *attacks.values()):
        assert 0 <= hits <= of == trials
    assert attacks[headline.details["strongest"]] == min(attacks.values())


# --- what is measured -------------------------------------------------------------------------------------------------


def test_every_row_of_the_part_is_measured_and_no_other():
    assert list(QUICK) == [row.id for row in rows_of(load_taxonomy(), "defenses against evasion")]


def test_six_attacks_of_which_one_knows_the_defense():
    for name, attacks in SIX.items():
        assert len(attacks) == 6 - (name == "guarded") and ("adaptive" in attacks) == (name != "guarded")
    assert SIX.keys() == BUDGETS.keys() and {masking.six for masking in MASKINGS.values()} < SIX.keys()


def test_an_image_is_robust_only_if_it_stands_clean_and_after_every_attack():
    clean, attacks = mask("11110"), {"a": mask("11011"), "b": mask("10111")}
    assert survived(clean, attacks).tolist() == mask("10010").tolist()
    headline = robust_headline(clean, attacks, [0, 5], setup="s", budget="b")
    assert headline.value == 2 / 5 and headline.interval == Rate(2, 5).interval and headline.better == "higher"
    assert headline.details == {
        "clean": [4, 5],
        "undefended": [0, 5],
        "attacks": {"a": [4, 5], "b": [4, 5]},
        "strongest": "a",
    }


def test_a_proof_that_an_attack_refutes_is_seen():
    clean, attacks = mask("111"), {"a": mask("110")}
    told = [certified_headline(mask(c), clean, attacks, [0, 3], setup="s", budget="b") for c in ("100", "101")]
    assert [headline.value for headline in told] == [1 / 3, 2 / 3]
    assert [headline.details["refuted"] for headline in told] == [0, 1]
    assert told[0].details["survive all"] == [2, 3]


def test_a_detector_is_charged_with_every_image_that_some_attack_takes_past_it():
    attacks = {"a": mask("1101"), "b": mask("0111")}
    headline = detector_headline(mask("1111"), attacks, [0, 4], alarms=[1, 4], setup="s", budget="b")
    assert headline.value == 2 / 4 and headline.better == "lower" and headline.details["false alarms"] == [1, 4]


# --- how it is judged: a linear model, whose robust images are known exactly ------------------------------------------


def exactly_robust(model: nn.Module, x: torch.Tensor, y: torch.Tensor, eps: float) -> torch.Tensor:
    """For a linear model: the worst lead over each other class, pixel by pixel."""
    zero, ones = torch.zeros(1, *x.shape[1:]), torch.eye(x[0].numel()).view(-1, *x.shape[1:])
    with torch.no_grad():
        bias = model(zero)[0].double()
        weights = (model(ones).double() - bias).T
    low, high = (x - eps).clamp_min(0).flatten(1).double(), (x + eps).clamp_max(1).flatten(1).double()
    w = weights[y, None] - weights[None]
    lead = torch.einsum("nkd,nd->nk", w.clamp_min(0), low) + torch.einsum("nkd,nd->nk", w.clamp_max(0), high)
    lead += bias[y, None] - bias
    return lead.scatter(1, y[:, None], math.inf).amin(1) > 0


@pytest.mark.parametrize("six", ["trained", "masked"])
def test_six_attacks_on_a_linear_model_leave_exactly_what_is_robust(six):
    model, ball = reference("softmax", "digits"), Ball("linf", 0.05)
    x, y = images(seed=0, number=32)
    exact = exactly_robust(model, x, y, ball.eps)
    assert 0.2 < exact.double().mean() < 0.9
    left = survived(*standing("none", alike(model), six, ball, seed=0, number=32))
    assert torch.equal(left, exact)


@pytest.mark.parametrize(("six", "ball"), [("masked", Ball("linf", 0.2)), ("smoothed", Ball("l2", 1.0))])
def test_attacks_stay_in_the_ball(six, ball):
    model = reference("mlp", "digits")
    x_adv = attacked("none", alike(model), SIX[six], ball, seed=0, number=FEW)
    for name, image in x_adv.items():
        assert (norms(image - x_adv["clean"], ball.norm) <= ball.eps + 1e-5).all(), name
        assert image.min() >= 0 and image.max() <= 1


def test_without_a_defense_nothing_stands():
    assert undefended("lenet", "masked", Ball("linf", 0.2), 0, FEW) == (0, FEW)


# --- the rows, small --------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_images_whatever_ran_before():
    attacks = {name: SIX["random"][name] for name in ("MIM", "PGD")}
    resized = MASKINGS["random_resize_pad"].build("digits")

    def run(seed):
        found = attacked("random resizing, padding", resized, attacks, Ball("linf", 0.2), seed, 4)
        return torch.stack([*found.values()])

    first = run(3)
    run(4)
    assert torch.equal(first, run(3))


def test_a_masked_gradient_stops_those_who_follow_it_and_nobody_else():
    headline = masked("thermometer", 0, number=FEW)
    check(headline, FEW)
    attacks = headline.details["attacks"]
    assert attacks["PGD"][0] > FEW / 2 and attacks["adaptive"][0] == 0 == headline.value


def test_robust_training_is_judged_beside_the_bare_network(brief):
    headline = robustly("fast_adversarial_training", 0, number=FEW, epochs=2)
    check(headline, FEW)
    assert headline.budget.startswith("2 epochs") and headline.details["undefended"][0] == 0


def test_test_images_and_their_labels_train_nothing(monkeypatch):
    data = load("digits")
    scrambled = replace(data, x_test=torch.zeros_like(data.x_test), y_test=torch.zeros_like(data.y_test))
    models = [trained.__wrapped__("convex_relaxation", 0, 1)]
    monkeypatch.setattr(quick_training, "load", lambda name: scrambled)
    models.append(trained.__wrapped__("convex_relaxation", 0, 1))
    for left, right in zip(*(model.parameters() for model in models), strict=True):
        assert torch.equal(left, right)


def test_a_detector_learns_nothing_from_test_images(monkeypatch):
    data = load("digits")
    scrambled = replace(data, x_test=torch.zeros_like(data.x_test), y_test=torch.zeros_like(data.y_test))
    scores = [scored(dimensioned("FGSM")("digits").detector, data.x_val)]
    monkeypatch.setattr(detection_jobs, "load", lambda name: scrambled)
    scores.append(scored(dimensioned("FGSM")("digits").detector, data.x_val))
    torch.testing.assert_close(*scores)


def test_what_is_proven_stands(brief):
    headline = proven(
        "convex_relaxation", Ball("linf", BETWEEN_LINES), CERTIFICATES["convex_relaxation"].args[2], "MLP", "mlp", 0,
        number=FEW, epochs=8,
    )  # fmt: skip
    check(headline, FEW)
    by = headline.details["certified by"]
    assert headline.details["refuted"] == 0 and by["linear bounds"][0] / FEW == headline.value
    assert by["intervals"][0] <= by["linear bounds"][0] <= headline.details["survive all"][0]


def test_a_vote_counts_as_the_normal_distribution_says():
    """A copy of a linear model's input votes for class 1 with probability Phi(lead / (sigma |w|))."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
    network[1].weight.data = torch.tensor([[0.0, 0.0, 0.0, 0.0], [1.0, -1.0, 1.0, 1.0]])
    x, copies = torch.tensor([[[[0.4, 0.2], [0.1, 0.2]]]]), 4000
    p = norm.cdf(0.5 / (SIGMA * 2))
    share = Vote(network, copies, seeded())(x).exp()[0, 1].item()
    won = round(share * (copies + 2)) - 1
    assert binom.ppf(FALSE_ALARM / 2, copies, p) <= won <= binom.isf(FALSE_ALARM / 2, copies, p)
    unsmoothed = norm.cdf(0.5 / SIGMA)  # a plant: the norm of w forgotten
    assert not binom.ppf(FALSE_ALARM / 2, copies, unsmoothed) <= won


def test_smoothing_certifies_no_more_than_it_gets_right():
    headline = smoothing(0, number=2, epochs=2, n=300)
    check(headline, 2)
    assert headline.value <= headline.details["clean"][0] / 2 and headline.details["abstained"][1] == 2
    assert headline.details["refuted"] == 0


def test_a_detector_has_its_threshold_from_validation_images():
    headline = detected("feature_squeezing", 0, number=FEW)
    check(headline, FEW)
    guard = squeezed("digits")
    t = threshold_at(scored(guard.detector, load("digits").x_val), 0.05)
    alarms = int((scored(guard.detector, images(0, FEW)[0]) > t).sum())
    assert headline.details["false alarms"] == [alarms, FEW]


def test_a_detector_that_suspects_nothing_is_evaded_and_one_that_suspects_attacks_is_not():
    def build(name, scale):
        guard = squeezed(name)
        x_val = load(name).x_val

        def unlike(x):  # how far from the nearest validation image, or nothing
            distance = torch.cdist(x.flatten(1), x_val.flatten(1)).amin(1)
            return scale * distance

        return replace(guard, detector=unlike, view=unlike)

    blind = detected("feature_squeezing", 0, number=FEW, build=partial(build, scale=0.0))
    assert blind.value == 1.0 and blind.details["false alarms"] == [0, FEW]
    jealous = detected("feature_squeezing", 0, number=FEW, build=partial(build, scale=1.0))
    assert jealous.value == 0.0 and jealous.details["false alarms"] == [FEW, FEW]


def test_every_row_states_data_radius_and_budget():
    assert IMAGES == 64 and set(RECIPES) | set(MASKINGS) | set(DETECTINGS) == set(QUICK)


@pytest.mark.full
@pytest.mark.parametrize("row", list(QUICK))
def test_the_whole_part(row):
    headline = QUICK[row](0)
    check(headline, IMAGES)
    assert "digits" in headline.setup and "eps" in headline.setup and headline.budget
    if row in CERTIFICATES:
        certified = round(headline.value * IMAGES)
        assert headline.details["refuted"] == 0 and certified > 0
        assert all(certified <= hits for hits, _ in headline.details["attacks"].values())
