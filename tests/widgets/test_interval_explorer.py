"""The interval explorer: bounds hold for whatever lies in the box, and the verdict is what they prove."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import nn

from spai_lab.widgets.interval_explorer import (
    EPS,
    IMAGES,
    NETWORKS,
    STAGES,
    VERDICTS,
    backdrop,
    describe,
    interval_explorer,
    network,
    render,
    subjects,
    verdict,
)


def artists(fig, gid):
    return [artist for artist in fig.findobj() if artist.get_gid() == gid]


@pytest.fixture(scope="module")
def explorer():
    return interval_explorer("digits")


@pytest.fixture(scope="module")
def found():
    return subjects("digits")[1]


def by_hand(model, x, eps):
    """The box of each stage, from the weights, in float64: positive weights take the near end, negative the far one."""
    lower, upper = ((x.double() + shift).clamp(0, 1).flatten(1) for shift in (-eps, eps))
    boxes = [(lower, upper)]
    lower, upper = ((end - 0.1307) / 0.3081 for end in (lower, upper))
    for layer in model:
        if isinstance(layer, nn.Linear):
            weight, bias = layer.weight.detach().double(), layer.bias.detach().double()
            plus, minus = weight.clamp_min(0).T, weight.clamp_max(0).T
            lower, upper = lower @ plus + upper @ minus + bias, upper @ plus + lower @ minus + bias
        elif isinstance(layer, nn.ReLU):
            lower, upper = lower.clamp_min(0), upper.clamp_min(0)
        else:
            continue
        boxes.append((lower, upper))
    return boxes


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("eps", EPS[::2])
def test_widths_are_those_of_interval_arithmetic(found, name, eps):
    boxes = by_hand(network("digits", name), found.x, eps)
    bounds = found.at[name, eps]
    assert len(bounds.widths) == len(boxes) == len(STAGES)
    for width, (lower, upper) in zip(bounds.widths, boxes, strict=True):
        assert torch.allclose(width.double(), (upper - lower)[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_truth_lies_between_the_bounds_and_what_is_found(name):
    """No random point of the box, center and corners included, has a margin below a bound."""
    model, generator = network("digits", name), torch.Generator().manual_seed(0)
    for found in subjects("digits"):
        for eps in EPS:
            bounds = found.at[name, eps]
            noise = 2 * torch.rand(200, *found.x.shape[1:], generator=generator) - 1
            inside = (found.x + eps * torch.cat([noise, noise.sign(), 0 * noise[:1]])).clamp(0, 1)
            with torch.no_grad():
                logits = model(inside)
            margins = (logits[:, [found.y]] - logits).amin(0)
            for lower in (bounds.interval, bounds.crown):
                assert (margins >= lower - 1e-3).all() and (bounds.found >= lower - 1e-3).all()
            assert (bounds.found[bounds.others] <= margins[bounds.others] + 1e-3).double().mean() > 0.85


def test_margins_shrink_and_intervals_loosen_as_the_box_grows(found):
    for name in NETWORKS:
        for smaller, larger in pairwise(EPS):
            before, after = found.at[name, smaller], found.at[name, larger]
            assert (after.found <= before.found).all() and (after.interval <= before.interval + 1e-4).all()


def test_at_eps_zero_everything_agrees(found):
    for name in NETWORKS:
        bounds = found.at[name, 0.0]
        assert all(float(width.abs().max()) == 0 for width in bounds.widths)
        assert torch.allclose(bounds.interval, bounds.found, atol=1e-4)
        assert torch.allclose(bounds.crown, bounds.found, atol=1e-4) and bounds.verdict == "verified"
    assert "the box is the image alone" in verdict(found, 0.0)


def test_verdicts_follow_from_the_bounds(found):
    bounds = found.at["ibp", 0.01]
    high, low = torch.full((10,), 2.0), torch.full((10,), -2.0)
    cases = {"verified": (high, low, high), "crown": (low, high, high), "open": (low, low, high)}
    cases["broken"] = (low, low, low)
    for expected, (interval, crown, reached) in cases.items():
        assert replace(bounds, interval=interval, crown=crown, found=reached).verdict == expected
    mixed = replace(bounds, interval=high.clone(), crown=low.clone(), found=high)
    mixed.interval[:5], mixed.crown[:5] = -2.0, 2.0
    assert mixed.verdict == "crown"


def test_training_with_ibp_tightens_the_boxes_and_verifies():
    verified = dict.fromkeys(NETWORKS, 0)
    for found in subjects("digits"):
        logits = [found.at[name, 0.05].widths[-1].double().median() for name in NETWORKS]
        assert logits[1] < logits[0] / 5
        for name in NETWORKS:
            verified[name] += found.at[name, 0.05].verdict == "verified"
    assert verified["natural"] == 0 and verified["ibp"] >= 3


@pytest.mark.parametrize("eps", EPS[::4])
def test_it_draws_what_is_known(found, eps):
    fig = render(found, eps)
    for name in NETWORKS:
        bounds = found.at[name, eps]
        for kind in ("interval", "crown", "found"):
            (line,) = artists(fig, f"{name} {kind}")
            assert list(line.get_xdata()) == getattr(bounds, kind)[bounds.others].tolist()
            left, right = backdrop("digits", found.y).axes[name].get_xlim()
            assert left < min(line.get_xdata()) and max(line.get_xdata()) < right
        (line,) = artists(fig, f"{name} widths")
        assert line.get_ydata() == pytest.approx([float(width.double().quantile(0.5)) for width in bounds.widths])
        (words,) = artists(fig, f"{name} verdict")
        assert words.get_text() == f"{NETWORKS[name]}: {VERDICTS[bounds.verdict]}"
    fig.canvas.draw()


def test_words_follow_the_picture():
    for found in subjects("digits"):
        for eps in EPS[1:]:
            said, alt = verdict(found, eps), describe(found, eps)
            for name in NETWORKS:
                assert VERDICTS[found.at[name, eps].verdict][2:] in alt
            assert ("here eps is larger" in said) == (eps > 0.1)
            count = sum(found.at[name, eps].verdict == "broken" for name in NETWORKS)
            assert said.count("is misread") == count and "nan" not in said + alt


def test_controls_redraw(explorer):
    for name, value in (("eps", 0.0), ("eps", 0.2), ("image", IMAGES - 1)):
        before = explorer.png, explorer.alt, explorer.caption
        explorer.controls[name].value = value
        assert explorer.png != before[0] and explorer.alt != before[1] and explorer.caption != before[2]
    assert explorer.caption == verdict(subjects("digits")[-1], 0.2)
    assert 'role="alert"' not in explorer.children[2].value


def test_bad_arguments_are_refused(refuses, found):
    refuses(subjects, {"dataset": "moons"}, "dataset is 'moons'", "digits")
    refuses(interval_explorer, {"dataset": "faces"}, "dataset is 'faces'", "digits")
    for function in (render, verdict, describe):
        refuses(function, {"found": found, "eps": 0.04}, "eps is 0.04", "0.03, 0.05")
