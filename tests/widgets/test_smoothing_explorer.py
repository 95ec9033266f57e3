"""The smoothing explorer: votes are counted, bounds are Clopper and Pearson's, and words follow the picture."""

import math
from dataclasses import replace

import pytest
import torch
from matplotlib.colors import to_hex
from scipy.stats import binomtest, norm

from spai_lab.data import load
from spai_lab.style import COLORS
from spai_lab.widgets.smoothing_explorer import (
    IMAGES,
    SIGMAS,
    Subject,
    base,
    chosen,
    describe,
    farthest,
    render,
    smoothing_explorer,
    subject,
    verdict,
)


def artists(fig, gid):
    return [artist for artist in fig.findobj() if artist.get_gid() == gid]


@pytest.fixture(scope="module")
def explorer():
    return smoothing_explorer("digits")


@pytest.fixture(scope="module")
def found():
    return subject("digits", 1)


def test_the_network_reads_noisy_images():
    data, model = load("digits"), base("digits")
    noise = 0.5 * torch.randn(data.x_test.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        right = [(model(x).argmax(1) == data.y_test).double().mean() for x in (data.x_test, data.x_test + noise)]
    assert not model.training and right[0] > 0.9 and right[1] > 0.75


def test_images_are_of_different_classes_and_read_rightly():
    x, y = chosen("digits")
    assert len(x) == len(y.unique()) == IMAGES
    with torch.no_grad():
        assert torch.equal(base("digits")(x).argmax(1), y)


@pytest.mark.parametrize("image", range(IMAGES))
@pytest.mark.parametrize("sigma", SIGMAS)
def test_bound_and_radius_are_those_of_the_votes(image, sigma):
    outcome = subject("digits", image).at[sigma]
    hits = outcome.counts[outcome.guess]
    assert sum(outcome.counts) == 1000
    # the two-sided interval of 99.8 % leaves 0.1 % below
    exact = binomtest(hits, 1000).proportion_ci(0.998, method="exact").low
    assert outcome.p_a == pytest.approx(exact, abs=1e-6)
    assert outcome.abstained == (exact <= 0.5)
    assert outcome.radius == pytest.approx(max(0.0, sigma * norm.ppf(exact)), abs=1e-6)
    assert outcome.radius <= farthest(sigma)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_votes_agree_with_fresh_ones(found, sigma):
    """Two shares of 1,000 votes differ by less than 5 of their standard errors, unless in one run of a million."""
    noise = sigma * torch.randn(1000, *found.x.shape[1:], generator=torch.Generator().manual_seed(99))
    with torch.no_grad():
        fresh = base("digits")(found.x + noise).argmax(1).bincount(minlength=10)
    for count, again in zip(found.at[sigma].counts, fresh.tolist(), strict=True):
        share = (count + again) / 2000
        assert abs(count - again) <= 5 * math.sqrt(2000 * share * (1 - share)) + 1


def test_farthest_has_a_closed_form():
    assert farthest(0.5) == pytest.approx(0.5 * norm.ppf(0.001 ** (1 / 1000)))


@pytest.mark.parametrize("sigma", SIGMAS)
def test_it_draws_the_votes_and_the_present_point(found, sigma):
    fig, outcome = render(found, sigma), found.at[sigma]
    bars = artists(fig, "vote")
    drawn = {round(bar.get_x() + 0.4): bar.get_height() for bar in bars}
    assert drawn == {label: count for label, count in enumerate(outcome.counts) if count}
    for bar in bars:
        right = round(bar.get_x() + 0.4) == found.y
        assert to_hex(bar.get_facecolor()) == COLORS["clean" if right else "adversarial"]
        assert bool(bar.get_hatch()) != right
    (bound,), (present,) = artists(fig, "bound"), artists(fig, "present")
    assert set(bound.get_ydata()) == {1000 * outcome.p_a}
    assert present.get_xydata()[0] == pytest.approx([sigma, outcome.radius])
    fig.canvas.draw()


def test_copies_have_the_noise_that_they_should(found):
    for sigma in SIGMAS:
        noise = found.at[sigma].copies - found.x
        assert noise.std().item() == pytest.approx(sigma, rel=0.1) and noise.mean().abs() < 0.1 * sigma
        with torch.no_grad():
            assert tuple(base("digits")(found.at[sigma].copies).argmax(1).tolist()) == found.at[sigma].answers


def test_abstention_and_a_wrong_class_are_said(found):
    counts = tuple(100 for _ in range(10))
    nothing = replace(found.at[0.5], counts=counts, guess=0, p_a=0.07, radius=0.0, abstained=True)
    silent = Subject("digits", 0, found.x, found.y, found.classes, dict.fromkeys(SIGMAS, nothing))
    assert "it abstains" in verdict(silent, 0.5) and "No sigma certifies" in verdict(silent, 0.5)
    assert "abstains" in describe(silent, 0.5)
    (words,) = artists(render(silent, 0.5), "words")
    assert words.get_text().endswith("abstains")
    other = (found.y + 1) % 10
    astray = replace(found.at[0.5], counts=tuple(1000 * (k == other) for k in range(10)), guess=other)
    wrong = Subject("digits", 0, found.x, found.y, found.classes, dict.fromkeys(SIGMAS, astray))
    assert f"The class is wrong: the image is a {found.classes[found.y]}" in verdict(wrong, 0.5)


def test_words_follow_the_picture(found):
    for sigma in SIGMAS:
        outcome, said = found.at[sigma], verdict(found, sigma)
        assert said.startswith(f"{outcome.counts[outcome.guess]:,} of 1,000 noisy copies vote for")
        assert f"at least {outcome.p_a:.3f}" in said and "trained with noise of sigma 0.5 on 1,078 images" in said
        assert f"Gaussian noise of sigma {sigma:g}" in describe(found, sigma)


def test_controls_redraw(explorer):
    for name, value in (("sigma", 0.12), ("sigma", 1.0), ("image", 4)):
        before = explorer.png, explorer.alt, explorer.caption
        explorer.controls[name].value = value
        assert all(new != old for new, old in zip((explorer.png, explorer.alt, explorer.caption), before, strict=True))
    assert explorer.caption == verdict(subject("digits", 4), 1.0)
    assert 'role="alert"' not in explorer.children[2].value


def test_bad_arguments_are_refused(refuses, found):
    refuses(subject, {"dataset": "moons", "image": 0}, "dataset is 'moons'", "digits")
    refuses(subject, {"dataset": "digits", "image": IMAGES}, f"image is {IMAGES}", "0 to")
    refuses(smoothing_explorer, {"dataset": "faces"}, "dataset is 'faces'", "digits")
    for function in (render, verdict, describe):
        refuses(function, {"found": found, "sigma": 0.3}, "sigma is 0.3", "0.25, 0.5")
