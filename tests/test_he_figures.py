"""The drawings of homomorphic encryption show the numbers that they are given, and refuse what is none."""

import math

import numpy as np
import pytest
from matplotlib.colors import to_hex
from numpy.polynomial import Chebyshev, Polynomial
from scipy import stats

from spai_lab.he_figures import activations, expansion, noise_over_steps, precision_of_shared, seconds
from spai_lab.style import COLORS, MARKERS, to_png

SIZES = {
    "Paillier": {"image": 64, "ciphertext": 32_768, "keys": 256},
    "CKKS, one image": {"image": 64, "ciphertext": 262_144, "keys": 32e6},
    "CKKS, a batch": {"image": 64, "ciphertext": 4_096.0},
}
POINTS = {
    "slow": (250.0, 0.9895, "published"),
    "ours": (0.199, 0.961, "measured"),
    "untold": (2.2, None, "published"),
}
STEPS = [("encrypt", 2.0**-14, 2.0**-17), ("square", 2.0**-6, 2.0**-13), ("sum", 2.0**-3, 2.0**-12)]


def lines(ax):
    return {line.get_label(): line for line in ax.lines}


def texts(ax):
    return [text.get_text().strip() for text in ax.texts]


# --- activations ------------------------------------------------------------------------------------------------------


def test_polynomials_are_those_that_numpy_fits():
    """numpy's least squares, and its interpolation in Chebyshev points, which is near the series of many terms."""
    fig = activations((2, 4), 3.0, reach=2.0)
    curves, wrong = (lines(ax) for ax in fig.axes)
    dense = np.linspace(-3, 3, 20_001)
    for degree in (2, 4):
        least = curves[f"least squares, degree {degree}"]
        expected = Polynomial.fit(dense, np.maximum(dense, 0), degree)
        assert least.get_ydata() == pytest.approx(expected(least.get_xdata()), abs=1e-6)
        series = curves[f"Chebyshev, degree {degree}"]
        long = Chebyshev.interpolate(lambda z: np.maximum(z, 0), 2000, domain=(-3, 3))
        assert series.get_ydata() == pytest.approx(long.truncate(degree + 1)(series.get_xdata()), abs=1e-4)
    z = curves["ReLU"].get_xdata()
    assert (z[0], z[-1]) == (-6, 6) and curves["ReLU"].get_ydata().tolist() == [max(0.0, each) for each in z]
    for name in curves.keys() - {"ReLU"}:
        assert wrong[name].get_ydata() == pytest.approx(np.abs(curves[name].get_ydata() - curves["ReLU"].get_ydata()))
    assert fig.axes[1].get_yscale() == "log"


def test_divergence_is_seen():
    """The error of degree 8 leaves the left panel, and is within the right one up to the end."""
    fig = activations((8,), 2.0, reach=3.0)
    curve, wrong = (lines(ax)["least squares, degree 8"] for ax in fig.axes)
    assert abs(curve.get_ydata()[-1]) > fig.axes[0].get_ylim()[1]
    assert 1000 < wrong.get_ydata()[-1] < fig.axes[1].get_ylim()[1]
    shades = {to_hex(line.get_color()) + line.get_marker() for line in fig.axes[1].lines}
    assert len(shades) == len(fig.axes[1].lines) and to_png(fig)


# --- bytes and seconds ------------------------------------------------------------------------------------------------


def test_bars_are_as_long_as_the_bytes_and_say_how_many_times():
    fig = expansion(SIZES)
    ax = fig.axes[0]
    assert [bar.get_width() for bar in ax.patches] == [count for parts in SIZES.values() for count in parts.values()]
    assert ax.get_xscale() == "log"
    colors = [to_hex(bar.get_facecolor()) for bar in ax.patches[:3]]
    assert colors == [COLORS["clean"], COLORS["private"], COLORS["baseline"]]
    assert len({bar.get_hatch() for bar in ax.patches[:3]}) == 3
    said = texts(ax)
    assert said[1] == "32.8 kB, 512 × the image" and said[4] == "262 kB, 4,096 × the image" and said[5] == "32 MB"
    assert said[-1] == "4.1 kB, 64 × the image"
    assert [text.get_text() for text in ax.get_legend().texts] == ["image", "ciphertext", "keys"]


@pytest.mark.parametrize("sizes", [SIZES, {"x": {"image": 784, "ciphertext": 1000}}, {"x": SIZES["Paillier"]}])
def test_words_beside_bars_stay_inside(sizes):
    fig = expansion(sizes)
    to_png(fig)
    for text in fig.axes[0].texts:
        assert text.get_window_extent().x1 <= fig.axes[0].bbox.x1


def test_seconds_are_sorted_and_kinds_have_looks_of_their_own():
    fig = seconds(POINTS)
    ax = fig.axes[0]
    points = {line.get_gid(): line for line in ax.lines if line.get_gid()}
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["ours", "untold", "slow"]
    for row, name in enumerate(("ours", "untold", "slow")):
        assert points[name].get_xydata().tolist() == [[POINTS[name][0], row]]
    assert points["ours"].get_marker() == MARKERS["private"] != points["slow"].get_marker()
    assert to_hex(points["ours"].get_markerfacecolor()) != to_hex(points["slow"].get_markerfacecolor())
    assert texts(ax)[:6] == ["199 ms", "96.10 %", "2.2 s", "–", "250 s", "98.95 %"]
    assert ax.get_xscale() == "log" and ax.get_ylim()[0] > ax.get_ylim()[1]
    assert [text.get_text() for text in ax.get_legend().texts] == ["measured", "published"]


def test_columns_of_words_do_not_meet():
    fig = seconds({**POINTS, "a system with a rather long name": (0.0726, 1.0, "published")})
    to_png(fig)
    boxes = [text.get_window_extent() for text in fig.axes[0].texts]
    times, shares = boxes[::2], boxes[1::2]
    assert max(box.x1 for box in times) < min(box.x0 for box in shares)
    assert max(box.x1 for box in boxes) <= fig.bbox.x1 and fig.axes[0].bbox.x1 < min(box.x0 for box in times)


# --- errors -----------------------------------------------------------------------------------------------------------


def test_steps_are_drawn_in_bits():
    fig = noise_over_steps(STEPS)
    ax = fig.axes[0]
    assert list(lines(ax)["proved: at least"].get_ydata()) == [14, 6, 3]
    assert list(lines(ax)["observed"].get_ydata()) == [17, 13, 12]
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["encrypt", "square", "sum"]
    assert sorted(texts(ax), key=int) == ["3", "6", "12", "13", "14", "17"]
    assert "beyond the bound" not in lines(ax) and to_png(fig)


def test_an_error_beyond_its_bound_is_crossed():
    ax = noise_over_steps([*STEPS, ("wrong", 2.0**-4, 2.0**-1)]).axes[0]
    crossed = lines(ax)["beyond the bound"]
    assert crossed.get_xydata().tolist() == [[3, 1]] and to_hex(crossed.get_color()) == COLORS["adversarial"]


@pytest.mark.parametrize("results", [1, 1000])
def test_shared_precision_is_what_flooding_of_that_distance_leaves(results):
    r"""The noise of $\sigma = k \epsilon / \sqrt{2 \pi} \delta$, of whose N = 8,192 coefficients a slot is the sum.

    A slot has two parts of standard deviation $\sigma \sqrt{N / 2}$; what is drawn must cover them, with a probability
    of 1 - 1e-9 for 4,096 slots, and it may lose a bit by its bound.
    """
    error, degree = 2.0**-30, 8192
    fig = precision_of_shared({"a": error}, degree, results=results, largest=50.0)
    line = fig.axes[0].lines[0]
    for security, left in line.get_xydata()[::25]:
        sigma = results * error / (math.sqrt(2 * math.pi) * 2.0**-security)
        quantile = stats.rayleigh.isf(1e-9 / (degree / 2)) * sigma * math.sqrt(degree / 2)
        assert -1 < left + math.log2(error + quantile) < 0
    assert line.get_xdata()[[0, -1]].tolist() == [10, 50]
    assert "unshared: 30 bits" in fig.axes[0].get_legend().texts[0].get_text()


def test_curves_of_sharing_are_as_far_apart_as_their_errors():
    fig = precision_of_shared({"fine": 2.0**-33, "coarse": 2.0**-10}, 8192)
    fine, coarse = fig.axes[0].lines[:2]
    assert fine.get_ydata() - coarse.get_ydata() == pytest.approx(23)
    assert (fine.get_marker(), fine.get_linestyle()) != (coarse.get_marker(), coarse.get_linestyle())
    assert fig.axes[0].get_ylim()[0] < 0 < fig.axes[0].get_ylim()[1] and to_png(fig)


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: activations(()), "degrees is"),
        (lambda: activations((1, 2, 3, 4, 5)), "degrees is"),
        (lambda: activations("24"), "degrees is '24'"),
        (lambda: activations((0,)), "degree is 0"),
        (lambda: activations((17,)), "degree is 17"),
        (lambda: activations(a=0.0), "a is 0.0"),
        (lambda: activations(reach=1.0), "reach is 1.0"),
        (lambda: expansion({}), "sizes is"),
        (lambda: expansion({"a": {"image": 1}}), r"sizes\['a'\] is .*ciphertext"),
        (lambda: expansion({"a": {"image": 1, "ciphertext": 2, "lies": 3}}), r"sizes\['a'\] is"),
        (lambda: expansion({"a": {"image": 0, "ciphertext": 2}}), r"sizes\['a'\]\['image'\] is 0"),
        (lambda: expansion({"a": {"image": 1, "ciphertext": math.nan}}), r"\['ciphertext'\] is nan"),
        (lambda: seconds({}), "points is"),
        (lambda: seconds({"a": (1.0, 0.9)}), r"points\['a'\] is"),
        (lambda: seconds({"a": (0.0, 0.9, "measured")}), r"points\['a'\], seconds is 0.0"),
        (lambda: seconds({"a": (1.0, 98.0, "measured")}), r"points\['a'\], accuracy is 98.0"),
        (lambda: seconds({"a": (1.0, 0.9, "guessed")}), r"points\['a'\], kind is 'guessed'"),
        (lambda: noise_over_steps([]), "steps is"),
        (lambda: noise_over_steps([("a", 1.0)]), r"steps\[0\] is"),
        (lambda: noise_over_steps([("a", 1.0, 0.0)]), r"steps\[0\], observed is 0.0"),
        (lambda: noise_over_steps([("a", math.inf, 1.0)]), r"steps\[0\], bound is inf"),
        (lambda: precision_of_shared({}, 8192), "errors is"),
        (lambda: precision_of_shared({"a": 0.0}, 8192), r"errors\['a'\] is 0.0"),
        (lambda: precision_of_shared({"a": 0.1}, 1), "degree is 1"),
        (lambda: precision_of_shared({"a": 0.1}, 8192, results=0), "results is 0"),
        (lambda: precision_of_shared({"a": 0.1}, 8192, largest=10.0), "largest is 10.0"),
    ],
)
def test_what_does_not_fit_is_named(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()
