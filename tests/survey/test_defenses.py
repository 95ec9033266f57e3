"""The matrix of defenses counts image by image, says what it leaves out, and the committed one judges adaptively."""

import pytest
import torch

from spai_lab.metrics import Rate
from spai_lab.survey.defense_attacks import AS_PUBLISHED, FULL, QUICK, Trial, nearest
from spai_lab.survey.defense_jobs import AsPublished, Judged, images, jobs
from spai_lab.survey.defense_models import COSTLY, DEFENSES, EPS, alike, built, seeded
from spai_lab.survey.defenses import (
    BARS,
    MODELS,
    defense_matrix,
    left_out,
    marks,
    standing,
    strongest,
    survivors,
    three_bars,
)
from spai_lab.survey.measure import load_measurement
from spai_lab.threat import fooled, norms
from spai_lab.training import manifest

MASKING = tuple(AS_PUBLISHED)
ROBUST = ("PGD training", "TRADES")


def judged(defense: str, attack: str, stands: str, norm: str = "linf") -> dict:
    return {"kind": "judged", "norm": norm, "defense": defense, "attack": attack, "standing": stands}


MADE = {
    "rows": [
        judged("none", "none", "1111"),
        judged("none", "FGSM", "1100"),
        judged("none", "adaptive", "0110"),
        judged("thermometer", "none", "1110"),
        judged("thermometer", "adaptive", "0000"),
        judged("Defense-GAN", "none", "11", "l2"),
        judged("Defense-GAN", "adaptive", "10", "l2"),
        judged("Defense-GAN", "tailored", "01", "l2"),
        {"kind": "published", "defense": "thermometer", "norm": "linf", "standing": "1100"},
        {"kind": "published", "defense": "Defense-GAN", "norm": "linf", "standing": "11"},
    ]
}


def test_an_image_stands_only_if_it_survives_every_attack():
    assert survivors(MADE) == {"none": Rate(1, 4), "thermometer": Rate(0, 4)}
    table = defense_matrix(MADE)
    assert table.loc["none"].to_dict() == {"clean": 1.0, "FGSM": 0.5, "adaptive": 0.5, "all": 0.25}
    assert table.loc["thermometer"].isna().to_dict() == {"clean": False, "FGSM": True, "adaptive": False, "all": False}


def test_norms_are_not_mixed():
    assert set(defense_matrix(MADE, "l2").index) == {"Defense-GAN"}
    assert survivors(MADE, "l2") == {"Defense-GAN": Rate(0, 2)}


def test_three_bars_take_the_better_of_two_adaptive_attacks():
    bars = three_bars(MADE)
    assert list(bars) == ["thermometer", "Defense-GAN"]
    assert list(bars["thermometer"].values()) == [Rate(3, 4), Rate(2, 4), Rate(0, 4)]
    assert bars["Defense-GAN"]["adaptive attack"] == Rate(0, 2)


def test_the_strongest_attack_is_named():
    assert "| thermometer | adaptive | 0 % |" in strongest(MADE)


def test_a_pair_is_measured_or_it_is_said_why_not():
    for full in (False, True):
        measured = {(job.norm, job.defense, job.attack) for job in jobs("digits", full=full) if isinstance(job, Judged)}
        assert not measured & left_out("digits", full=full).keys()
        assert all(left_out("digits", full=full).values())
        assert {defense for norm, defense, _ in measured if norm == "linf"} == set(DEFENSES)
    everything = {(norm, defense, attack) for norm in FULL for defense in DEFENSES for attack in FULL[norm]}
    assert measured | left_out("digits", full=True).keys() == everything


def test_the_quick_matrix_has_eight_attacks_the_adaptive_one_among_them():
    in_linf = {job.attack for job in jobs("digits") if isinstance(job, Judged) and job.norm == "linf"} - {"none"}
    assert in_linf == QUICK.keys() - {"none"}
    assert len(in_linf) == 8 and {"adaptive", "tailored"} < in_linf


@pytest.fixture
def trial():
    """Eight digits, and the reference LeNet."""
    x, y = images("none", "digits", seed=0)
    from spai_lab.data import load

    return lambda norm, eps: Trial(
        "none", built("none", "digits"), load("digits"), x[:8], y[:8], {"eps": eps, "norm": norm}, seeded()
    )


@pytest.mark.parametrize(
    ("norm", "attack"), [(norm, attack) for norm in ("linf", "l2") for attack in FULL[norm] if attack != "tailored"]
)
@pytest.mark.full
def test_every_attack_stays_in_the_ball(trial, norm, attack):
    occasion = trial(norm, EPS[norm]["digits"])
    x_adv = FULL[norm][attack](occasion)
    assert (norms(x_adv - occasion.x, norm) <= EPS[norm]["digits"] + 1e-5).all()
    assert ((x_adv >= 0) & (x_adv <= 1)).all()


def test_a_least_distortion_counts_only_within_the_ball(trial):
    def halfway(model, x, y, *, generator):
        return x + torch.where(torch.arange(8).view(-1, 1, 1, 1) < 4, 0.1, 0.3) * torch.ones_like(x)

    occasion = trial("linf", 0.2)
    moved = norms(nearest(halfway)(occasion) - occasion.x, "linf")
    torch.testing.assert_close(moved, torch.tensor([0.1] * 4 + [0.0] * 4))


def test_a_row_says_which_images_stand():
    row = Judged("digits", "linf", "none", "FGSM").run(seed=0)
    x, y = images("none", "digits", seed=0)
    from spai_lab.attacks.evasion import fgsm

    model = built("none", "digits").model
    assert marks(row) == (~fooled(model, fgsm(model, x, y, eps=0.2), y)).tolist()


def test_the_attacks_of_the_papers_do_less_than_the_adaptive_ones():
    for defense in ("defensive distillation", "thermometer"):
        published, adaptive = AsPublished("digits", defense), Judged("digits", "linf", defense, "adaptive")
        left = [sum(marks(job.run(seed=0))) for job in (published, adaptive)]
        assert left[1] <= left[0]


def test_a_defense_that_hides_nothing_is_climbed_as_it_is():
    model = torch.nn.Flatten()
    assert alike(model).view is alike(model).network is alike(model).model is model


# --- the committed measurement ----------------------------------------------------------------------------------------


@pytest.fixture(params=["digits", "mnist"])
def committed(request):
    return load_measurement(f"defenses_{request.param}")


def test_the_committed_measurement_holds_every_job_and_the_committed_weights(committed):
    for job in jobs(committed["data"]):
        rows = [row for row in committed["rows"] if row.items() >= job.key.items()]
        assert len(rows) == 1, job
        assert len(rows[0]["standing"]) == COSTLY.get(job.defense, 100)
    entries, name = manifest()["models"], committed["data"]
    assert committed["weights"] == {model: entries[f"{model}-{name}"]["sha256"] for model in sorted(MODELS[name])}


def test_masking_falls_to_the_attack_that_knows_it(committed):
    """At most one image in ten stands; where more do, chapter 07 shows why."""
    bars = three_bars(committed)
    assert list(bars) == list(MASKING)
    stands = {defense: bars[defense][BARS[2]].value for defense in MASKING}
    assert {defense for defense, share in stands.items() if share > 0.1} <= {
        "Defense-GAN",
        "bit depth 1",
        "total variation",
    }


def test_the_adaptive_attack_beats_square_and_transfer_behind_masked_gradients(committed):
    found, bars = standing(committed), three_bars(committed)
    for defense in set(MASKING) - {"Defense-GAN"}:
        for other in ("Square", "transfer"):
            assert bars[defense][BARS[2]].hits <= sum(found[defense, other]), (defense, other)


def test_robust_training_withstands_what_masking_does_not(committed):
    left = survivors(committed)
    assert min(left[defense].value for defense in ROBUST) > 0.5 > left["none"].value
