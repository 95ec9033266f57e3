"""The drawings of differential privacy show the values, the intervals and the bounds that they are given."""

import math

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.container import ErrorbarContainer

from spai_lab.dp_figures import (
    audit_bars,
    levels,
    reports,
    scattered,
    spread,
    tradeoff,
    training_curves,
    vote_histogram,
)
from spai_lab.metrics import Caught, Rate
from spai_lab.privacy.scattering import scattering
from spai_lab.style import COLORS, to_png

ACCURACY = {0.5: Rate(60, 100), 4.0: Rate(90, 100), math.inf: Rate(98, 100)}


def curves(ax):
    """Label to the points of each error bar, joined ones first, then those without privacy."""
    found = {}
    for bar in ax.containers:
        if not isinstance(bar, ErrorbarContainer):
            continue
        line, _, (spans,) = bar
        low, high = np.array(spans.get_segments())[:, :, 1].T
        found[bar.get_label()] = line.get_xydata(), low, high, line
    return found


def legend(fig):
    return [
        text.get_text() for each in (*fig.legends, *(ax.get_legend() for ax in fig.axes)) if each for text in each.texts
    ]


@pytest.mark.parametrize("share", [Rate(3, 10), (0.3, 0.1, 0.6), Caught(0.3, 0.1, 0.6)])
def test_a_share_is_a_rate_or_a_value_with_its_ends(share):
    value, low, high = spread(share)
    assert value == 0.3 and low < value < high


def test_the_tradeoff_has_accuracy_attacks_and_bound_on_one_axis():
    attack = {epsilon: Caught(0.5 + 0.01 * place, 0.45, 0.6) for place, epsilon in enumerate(ACCURACY)}
    bound = {epsilon: 1 / (1 + math.exp(-epsilon)) for epsilon in (0.1, 0.5, 1.0, 4.0, 100.0)}
    fig = tradeoff(ACCURACY, {"loss": attack}, bound, chance=(0.5, "guessing"))
    ax = fig.axes[0]
    assert ax.get_xscale() == "log" and ax.get_xlabel() == "epsilon"
    points, low, high, line = curves(ax)["accuracy"]
    assert points.tolist() == [[0.5, 0.6], [4.0, 0.9]] and to_hex(line.get_color()) == COLORS["private"]
    assert list(zip(low, high, strict=True)) == [pytest.approx(ACCURACY[epsilon].interval) for epsilon in (0.5, 4.0)]
    assert to_hex(curves(ax)["loss"][3].get_color()) == COLORS["adversarial"]
    alone = [bar[0].get_xydata()[0] for bar in ax.containers if len(bar[0].get_xdata()) == 1]
    assert [y for _, y in alone] == [0.98, 0.52] and alone[0][0] == alone[1][0] > 4
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["0.5", "4", "no\nprivacy"]
    proved = next(line for line in ax.lines if str(line.get_label()).startswith("proved"))
    assert proved.get_xydata().tolist() == [[epsilon, bound[epsilon]] for epsilon in (0.5, 1.0, 4.0)]
    assert {"accuracy", "loss", "guessing"} < set(legend(fig)) and to_png(fig)


def test_a_tradeoff_without_the_end_has_no_end():
    ax = tradeoff({1.0: Rate(5, 10)}, {}, {1.0: 0.7}).axes[0]
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["1"]


def test_levels_keep_their_look_in_every_panel():
    other = {1.0: Rate(3, 10), 4.0: Rate(5, 10)}
    fig = levels({"a": {"input": other, "label": ACCURACY}, "b": {"label": ACCURACY}}, floor={"a": 0.1})
    first, second = (curves(ax) for ax in fig.axes)
    assert [ax.get_title("left") for ax in fig.axes] == ["a", "b"]
    assert first["label"][3].get_marker() == second["label"][3].get_marker() != first["input"][3].get_marker()
    assert first["label"][3].get_color() == second["label"][3].get_color() != first["input"][3].get_color()
    assert first["input"][0].tolist() == [[1.0, 0.3], [4.0, 0.5]]
    assert legend(fig) == ["input", "label", "guessing"]


def test_audit_bars_say_what_is_refuted():
    fig = audit_bars({"right": (2.0, 1.4), "no noise": (2.0, math.inf), "at it": (1.0, 1.0)}, confidence=0.99)
    ax = fig.axes[0]
    claimed, measured = ([bar.get_width() for bar in ax.patches[place::2]] for place in (0, 1))
    assert claimed == [2, 2, 1] and measured[0] == 1.4 and measured[1] == ax.get_xlim()[1]
    words = [text.get_text().strip() for text in ax.texts]
    assert words == ["2.00", "1.40  ○ not refuted", "2.00", "∞  ✕ refuted", "1.00", "1.00  ○ not refuted"]
    assert "99 %" in ax.get_xlabel() and to_png(fig)


def test_training_curves_tell_noises_apart_and_the_baseline_is_gray():
    shares = {1: Rate(5, 10), 2: Rate(6, 10)}
    fig = training_curves({"σ 1": shares, "σ 2": {1: Rate(2, 10), 2: Rate(4, 10)}}, without=shares, chance=0.1)
    lines = {line.get_label(): line for line in fig.axes[0].lines}
    assert list(lines["σ 2"].get_ydata()) == [0.2, 0.4] and list(lines["σ 2"].get_xdata()) == [1, 2]
    assert lines["σ 1"].get_linestyle() != lines["σ 2"].get_linestyle()
    assert to_hex(lines["without privacy"].get_color()) == COLORS["baseline"] and "guessing" in lines


def test_votes_show_the_answer_the_noise_and_the_truth():
    votes = torch.tensor([[5.0, 1.0, 0.0], [2.0, 2.0, 2.0], [0.0, 0.0, 6.0]])
    noisy = votes + torch.tensor([[0.0, -3.0, 0.0], [1.0, 0.0, 0.0], [9.0, 0.0, 0.0]])
    x = torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    fig = vote_histogram(votes, [0, None, 0], "abc", noisy=noisy, x=x, y=[0, 1, 2])
    images, panels = fig.axes[:3], fig.axes[3:]
    assert [ax.get_title("center") for ax in images] == [
        "true a, answer a ○", "true b, no answer", "true c, answer a ✕",
    ]  # fmt: skip
    for ax, counts, shown in zip(panels, votes.tolist(), noisy.tolist(), strict=True):
        bars = {round(bar.get_x() + 0.4): bar for bar in ax.patches}
        assert [bars[place].get_height() for place in range(3)] == counts
        assert list(ax.lines[0].get_ydata()) == shown
        low, high = ax.get_ylim()
        assert all(low < value < high for value in (*shown, *counts))
    private = [[to_hex(bar.get_facecolor()) == COLORS["private"] for bar in ax.patches] for ax in panels]
    assert [sum(row) for row in private] == [1, 0, 1] and to_png(fig)


def test_reports_show_true_and_estimated_shares():
    true = {"a": 0.7, "b": 0.3}
    estimated = {"epsilon 1": {"a": (0.8, 0.6, 1.0), "b": (-0.1, -0.2, 0.1)}}
    ax = reports(true, estimated).axes[0]
    assert [bar.get_height() for bar in ax.patches] == [0.7, 0.3]
    points, low, high, _ = curves(ax)["epsilon 1"]
    assert points.tolist() == [[0, 0.8], [1, -0.1]]
    assert low == pytest.approx([0.6, -0.2]) and high == pytest.approx([1.0, 0.1])


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: tradeoff({}, {}, {1.0: 0.7}), "accuracy is .*at least one value"),
        (lambda: tradeoff({1.0: Rate(1, 2)}, {"loss": {0.0: Rate(1, 2)}}, {1.0: 0.7}), "loss is .*above 0"),
        (lambda: levels({}), "tasks is"),
        (lambda: levels({"a": {}}), "tasks is"),
        (lambda: audit_bars({}), "audits is"),
        (lambda: audit_bars({"a": (-1.0, 0.0)}), "audits is .*at least 0"),
        (lambda: training_curves({}), "curves is"),
        (lambda: training_curves({"a": {}}), "curves is"),
        (lambda: vote_histogram(torch.zeros(2, 3), [0, 1], "ab"), "votes is .*a column for each class"),
        (lambda: vote_histogram(torch.zeros(2, 2), [0], "ab"), "winners has 1 entries; accepted: 2"),
        (lambda: reports({"a": 1.0}, {}), "estimated is"),
        (lambda: reports({"a": 1.0}, {"e": {"b": (0, 0, 0)}}), "estimated is .*'a'"),
    ],
)
def test_what_does_not_fit_is_named(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()


def test_scattering_is_drawn_by_scale_and_direction():
    stripes = (torch.arange(28) % 4 < 2).float().expand(1, 1, 28, 28)
    coefficients = scattering(stripes)[0]
    axes = scattered(stripes[0], coefficients).axes
    maps = {ax.get_title(): np.asarray(ax.images[0].get_array()) for ax in axes[:9]}
    assert len(axes) == 18 and max((part.mean(), title) for title, part in maps.items() if title != "image")[1] == "90°"
    assert np.array_equal(maps["90°"], coefficients[5].numpy())


@pytest.mark.parametrize("coefficients", [torch.rand(80, 7, 7), torch.rand(1, 81, 7, 7)])
def test_other_things_than_coefficients_are_refused(coefficients):
    with pytest.raises(ValueError, match="coefficients"):
        scattered(torch.rand(1, 28, 28), coefficients)
