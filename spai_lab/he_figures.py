"""Drawings of the chapter on homomorphic encryption: what can be computed, what it costs, and what errors do."""

import math
from collections.abc import Mapping, Sequence
from textwrap import fill

import matplotlib.ticker as ticker
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from spai_lab.checks import check_choice, check_count, check_number, describe
from spai_lab.crypto.ckks_noise import precision
from spai_lab.crypto.ckks_sharing import flooding_cost
from spai_lab.crypto.polynomials import SQUARE, chebyshev, check_degree, evaluate, least_squares, relu
from spai_lab.defense_figures import HATCHES
from spai_lab.dp_figures import BESIDE, BOUND, told_apart
from spai_lab.figures import LINES
from spai_lab.style import COLORS, MARKERS, figure, styled

PARTS = {"image": "clean", "ciphertext": "private", "keys": "baseline"}
KINDS = {"measured": "private", "published": "baseline"}
FITS = {"least squares": (least_squares, "clean"), "Chebyshev": (chebyshev, "defended")}
LOWEST_ERROR = 1e-3  # on the axis; where a polynomial crosses ReLU its error is 0
POINTS = 1_201
LARGE = {"fontsize": 15}
COLUMNS = (12, 88)  # points to the right of the axes
WORDS = {"ciphertext": 0.4}  # of the width, what stands beside a bar
UNITS = ("B", "kB", "MB", "GB", "TB")
LEAST_SECURITY = 10.0  # bits from which on sharing is drawn: an attacker gains at most 2^-10


def activations(degrees: Sequence[int] = (2, 4), a: float = 4.0, *, reach: float = 2.0) -> Figure:
    r"""ReLU, the square and polynomials fitted to ReLU on $[-a, a]$: the curves, and how wrong they are, on a log axis.

    Args:
        degrees: of the polynomials, from 1 to 16, one to four of them.
        a: half the interval, above 0.
        reach: how far outside to look, as a multiple of a, above 1.
    Returns:
        the figure; curves that leave its left panel are still seen in the right one.
    Raises:
        ValueError: names the argument.
    """
    if not isinstance(degrees, Sequence) or isinstance(degrees, str) or not 1 <= len(degrees) <= len(LINES):
        raise ValueError(f"degrees is {describe(degrees)}; accepted: one to {len(LINES)} whole numbers")
    for degree in degrees:
        check_degree(degree)
    check_number("a", a, low=0, exclusive=True)
    check_number("reach", reach, low=1, exclusive=True)
    z = np.linspace(-reach * a, reach * a, POINTS)
    true, top = relu(z), 1.25 * reach * a
    fig, axes = figure(12, 5.4, columns=2)
    curves, wrong = axes[0]
    with styled():
        for ax in (curves, wrong):
            ax.axvspan(-a, a, color=COLORS["baseline"], alpha=0.15, linewidth=0, label="fitted here")
        curves.plot(z, true, color="black", linewidth=4, label="ReLU")
        for label, values, look in fits(degrees, a, z):
            curves.plot(z, values, label=label, markevery=POINTS // 10, **look)
            wrong.plot(z, np.abs(values - true), label=label, markevery=POINTS // 10, **look)
        curves.set(xlim=(z[0], z[-1]), ylim=(-top / 2, top))
        curves.set_title("what it computes", **LARGE)
        wrong.set(xlim=(z[0], z[-1]), yscale="log")
        wrong.set_ylim(bottom=LOWEST_ERROR)
        wrong.set_title("how far from ReLU", **LARGE)
        for ax in (curves, wrong):
            ax.set_xlabel("z", **LARGE)
            ax.tick_params(labelsize=14)
        handles, labels = curves.get_legend_handles_labels()
        fig.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=14)
    return fig


def fits(degrees: Sequence[int], a: float, z: np.ndarray) -> list[tuple[str, np.ndarray, dict]]:
    """The square, and each fit of each degree: its name, its values and its look."""
    square = {"color": COLORS["adversarial"], "marker": MARKERS["adversarial"], "linestyle": (0, (1, 1))}
    found = [("z²", evaluate(SQUARE, z), square)]
    for name, (fit, role) in FITS.items():
        for number, degree in enumerate(degrees):
            color, marker = told_apart(role, number)
            look = {"color": color, "marker": marker, "linestyle": LINES[number]}
            found.append((f"{name}, degree {degree}", evaluate(fit(degree, a), z), look))
    return found


def expansion(sizes: Mapping[str, Mapping[str, float]]) -> Figure:
    """Bytes of an image in the clear, encrypted, and of the keys, as bars on a log axis.

    Args:
        sizes: name of a scheme to its bytes, above 0: of the "image", of its "ciphertext", and of the "keys", which may
            be left out; for a batch, those of an image's share.
    Returns:
        the figure; at each ciphertext stands how many times larger than the image it is.
    Raises:
        ValueError: names the argument.
    """
    if not isinstance(sizes, Mapping) or not sizes:
        raise ValueError(f"sizes is {describe(sizes)}; accepted: a mapping with at least one scheme")
    for name, parts in sizes.items():
        if not isinstance(parts, Mapping) or not {"image", "ciphertext"} <= {*parts} <= {*PARTS}:
            raise ValueError(f"sizes[{name!r}] is {describe(parts)}; accepted: bytes of image, ciphertext, maybe keys")
        for part, count in parts.items():
            check_number(f"sizes[{name!r}][{part!r}]", count, low=0, exclusive=True)
    everything = [(part, count) for parts in sizes.values() for part, count in parts.items()]
    low = min(count for _, count in everything) / 3
    # so wide that the words beside each bar find room
    decades = max(math.log10(count / low) / (1 - WORDS.get(part, 0.12)) for part, count in everything)
    fig, axes = figure(11.5, 1.35 * len(sizes) + 1.7)
    ax = axes[0, 0]
    with styled():
        for row, parts in enumerate(sizes.values()):
            for place, (part, role) in enumerate(PARTS.items()):
                if part not in parts:
                    continue
                height = row + 0.27 * (place - 1)
                look = {"color": COLORS[role], "hatch": HATCHES[role], "edgecolor": "white", "label": part}
                ax.barh(height, parts[part], 0.25, **look)
                words = f" {in_bytes(parts[part])}"
                if part == "ciphertext":
                    words += f", {times(parts['ciphertext'] / parts['image'])} the image"
                ax.text(parts[part], height, words, va="center", fontsize=14)
        ax.set(xscale="log", xlim=(low, low * 10**decades))
        ax.xaxis.set_major_locator(ticker.LogLocator(10, numticks=8))
        ax.xaxis.set_major_formatter(lambda count, _: in_bytes(count))
        ax.minorticks_off()
        ax.set_yticks(range(len(sizes)), [fill(name, 18) for name in sizes], **LARGE)
        ax.tick_params(axis="x", labelsize=14)
        ax.invert_yaxis()
        handles = dict(zip(*ax.get_legend_handles_labels()[::-1], strict=True))
        shown = [part for part in PARTS if part in handles]
        place = {"loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": len(shown), "fontsize": 15}
        ax.legend([handles[part] for part in shown], shown, **place)
    return fig


def in_bytes(count: float) -> str:
    """So many bytes, in a unit of powers of 1,000.

    >>> in_bytes(64), in_bytes(262_235), in_bytes(3.26e8), in_bytes(0.5), in_bytes(999_999)
    ('64 B', '262 kB', '326 MB', '0.5 B', '1 MB')
    """
    power = 0 if count < 1 else min(int(math.log10(float(f"{count:.3g}")) // 3), len(UNITS) - 1)
    return f"{float(f'{count / 1000**power:.3g}'):,g} {UNITS[power]}"


def times(factor: float) -> str:
    """So many times.

    >>> times(4096.3), times(3.25), times(0.04)
    ('4,096 ×', '3.2 ×', '0.04 ×')
    """
    return f"{factor:,.0f} ×" if factor >= 10 else f"{factor:.2g} ×"


def seconds(points: Mapping[str, tuple[float, float | None, str]]) -> Figure:
    """Seconds for an encrypted image, a row for each system, on a log axis: ours and those that others published.

    Args:
        points: name of a system and its way of working, such as "CKKS, one image", to seconds above 0, accuracy from 0
            to 1 or None where none is told, and "measured" or "published".
    Returns:
        the figure, the fastest on top.
    Raises:
        ValueError: names the argument.
    """
    if not isinstance(points, Mapping) or not points:
        raise ValueError(f"points is {describe(points)}; accepted: a mapping with at least one system")
    for name, point in points.items():
        if not isinstance(point, tuple | list) or len(point) != 3:
            raise ValueError(f"points[{name!r}] is {describe(point)}; accepted: seconds, accuracy or None, and a kind")
        duration, share, kind = point
        check_number(f"points[{name!r}], seconds", duration, low=0, exclusive=True)
        if share is not None:
            check_number(f"points[{name!r}], accuracy", share, low=0, high=1)
        check_choice(f"points[{name!r}], kind", kind, tuple(KINDS))
    ordered = sorted(points.items(), key=lambda item: item[1][0])
    fig, axes = figure(12, 0.52 * len(points) + 1.8)
    ax = axes[0, 0]
    durations = [duration for duration, _, _ in points.values()]
    with styled():
        ax.set(xscale="log", xlim=(min(durations) / 3, max(durations) * 3), ylim=(len(points) - 0.5, -0.5))
        ax.grid(axis="x", color=COLORS["baseline"], alpha=0.3)
        for row, (name, (duration, share, kind)) in enumerate(ordered):
            ax.plot([ax.get_xlim()[0], duration], [row] * 2, color=COLORS["baseline"], alpha=0.4, linewidth=1.5)
            ax.plot([duration], [row], gid=name, **kind_look(kind))
            told = "–" if share is None else f"{100 * share:.2f} %"
            beside(ax, row, in_seconds(duration), told)
        beside(ax, -0.75, "time", "accuracy", weight="bold")
        ax.set_yticks(range(len(points)), [name for name, _ in ordered], **LARGE)
        ax.minorticks_off()
        ax.tick_params(axis="x", labelsize=14)
        ax.tick_params(axis="y", length=0)
        ax.set_xlabel("seconds an image", **LARGE)
        shown = [kind for kind in KINDS if kind in {kind for _, _, kind in points.values()}]
        handles = [Line2D([], [], label=kind, **kind_look(kind)) for kind in shown]
        ax.legend(handles=handles, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, fontsize=15)
    return fig


def beside(ax: Axes, row: float, *columns: str, **look: object) -> None:
    """Words to the right of the axes, in columns, at the height of a row."""
    for place, words in zip(COLUMNS, columns, strict=True):
        how = {"xycoords": ax.get_yaxis_transform(), "textcoords": "offset points", "va": "center", "fontsize": 14}
        ax.annotate(words, (1, row), (place, 0), annotation_clip=False, **how, **look)


def kind_look(kind: str) -> dict[str, object]:
    """How a measured and a published number look: filled and hollow, each with its own shape."""
    look = {"color": COLORS[KINDS[kind]], "linestyle": "", "markersize": 12, "markeredgewidth": 2.5}
    return (
        look
        | {"marker": MARKERS["private"] if kind == "measured" else "o", "fillstyle": "full"}
        | ({"markerfacecolor": "white", "markeredgecolor": "black"} if kind == "published" else {})
    )


def in_seconds(duration: float) -> str:
    """A duration in a unit that keeps it short.

    >>> in_seconds(0.00054), in_seconds(0.199), in_seconds(3.6), in_seconds(250)
    ('0.54 ms', '199 ms', '3.6 s', '250 s')
    """
    return f"{1000 * duration:.3g} ms" if duration < 0.9995 else f"{float(f'{duration:.3g}'):,g} s"


def noise_over_steps(steps: Sequence[tuple[str, float, float]]) -> Figure:
    r"""The bits after the binary point that are right after each operation: proved, by the bound, and observed.

    Args:
        steps: for each operation its name, the bound on the error, and the largest error that was observed, both above
            0, in units of the encrypted numbers. Bits are $-\log_2$ of them.
    Returns:
        the figure; an error that exceeds its bound, which should not be, is crossed.
    Raises:
        ValueError: names the argument.
    """
    if not isinstance(steps, Sequence) or isinstance(steps, str) or not steps:
        raise ValueError(f"steps is {describe(steps)}; accepted: a sequence of at least one operation")
    for place, step in enumerate(steps):
        if not isinstance(step, tuple | list) or len(step) != 3:
            raise ValueError(f"steps[{place}] is {describe(step)}; accepted: a name, a bound and an observed error")
        for name, error in zip(("bound", "observed"), step[1:], strict=True):
            check_number(f"steps[{place}], {name}", error, low=0, exclusive=True)
    names, bounds, observed = zip(*steps, strict=True)
    places = np.arange(len(steps))
    proved, seen = (np.array([precision(error) for error in errors]) for errors in (bounds, observed))
    fig, axes = figure(max(9.0, 1.15 * len(steps) + 3), 5.2)
    ax = axes[0, 0]
    with styled():
        ax.fill_between(places, proved, seen, color=COLORS["private"], alpha=0.12, linewidth=0)
        look = {"color": COLORS["private"], "marker": MARKERS["private"], "markersize": 11}
        ax.plot(places, seen, label="observed", **look)
        ax.plot(places, proved, label="proved: at least", marker="_", markersize=18, markeredgewidth=3, **BOUND)
        broken = seen < proved
        if broken.any():
            look = {"color": COLORS["adversarial"], "marker": MARKERS["adversarial"], "markersize": 16, "linestyle": ""}
            ax.plot(places[broken], seen[broken], label="beyond the bound", **look)
        ax.axhline(0, color="black", linewidth=0.8)
        for x, pair in zip(places, np.sort([seen, proved], axis=0).T, strict=True):
            for value, shift, side in zip(pair, (-9, 11), ("top", "bottom"), strict=True):
                words = {"textcoords": "offset points", "ha": "center", "va": side, "fontsize": 14}
                ax.annotate(f"{value:.0f}".replace("-", "−"), (x, value), (0, shift), **words)
        low, high = min(0.0, proved.min(), seen.min()), max(0.0, proved.max(), seen.max())
        ax.set_ylim(low - 0.14 * (high - low), high + 0.14 * (high - low))
        ax.set_xlim(-0.5, len(steps) - 0.5)
        ax.set_xticks(places, [fill(name, 11) for name in names], fontsize=14)
        ax.yaxis.set_major_locator(ticker.MaxNLocator(6, integer=True))
        ax.tick_params(axis="y", labelsize=14)
        ax.set_ylabel("right bits after the point", **LARGE)
        ax.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, fontsize=14)
    return fig


def precision_of_shared(errors: Mapping[str, float], degree: int, *, results: int = 1, largest: float = 40.0) -> Figure:
    r"""The bits that are left of a result that is shared after flooding, against how little it may give away.

    $-\log_2 \epsilon - \mathrm{cost}(\delta)$, over the statistical security $-\log_2 \delta$ from 10 bits on: each bit
    of it costs one of precision.

    Args:
        errors: name of a computation to the bound $\epsilon$ on its error before flooding, above 0, one to four.
        degree: N.
        results: how many results are shared under one key.
        largest: the statistical security, in bits, up to which curves are drawn, above 10 and at most 128.
    Returns:
        the figure; where a curve is below 0, nothing after the binary point is left.
    Raises:
        ValueError: names the argument.
    Reference: Li, Micciancio, Schultz and Sorrell 2022, IACR 2022/816, for flooding.
    """
    if not isinstance(errors, Mapping) or not 1 <= len(errors) <= len(LINES):
        raise ValueError(f"errors is {describe(errors)}; accepted: a mapping of one to {len(LINES)} bounds")
    for name, error in errors.items():
        check_number(f"errors[{name!r}]", error, low=0, exclusive=True)
    check_count("degree", degree, low=2)
    check_count("results", results)
    check_number("largest", largest, low=LEAST_SECURITY, high=128, exclusive=True)
    security = np.linspace(LEAST_SECURITY, largest, 101)
    cost = np.array([flooding_cost(degree, distance=2.0**-bits, results=results) for bits in security])
    fig, axes = figure(11.5, 5.2)
    ax = axes[0, 0]
    with styled():
        for number, (name, error) in enumerate(errors.items()):
            color, marker = told_apart("private", number)
            label = f"{fill(name, 22)}\n(unshared: {precision(error):.0f} bits)"
            look = {"color": color, "marker": marker, "markevery": 20, "linestyle": LINES[number], "label": label}
            ax.plot(security, precision(error) - cost, **look)
        low, high = ax.get_ylim()
        low, high = min(low, -5.0), max(high, 5.0)
        nothing(ax, low)
        ax.set(xlim=(security[0], security[-1]), ylim=(low, high))
        ax.tick_params(labelsize=14)
        ax.set_xlabel("statistical security: −log₂ of what an attacker gains", **LARGE)
        ax.set_ylabel("bits left after the point", **LARGE)
        shared = "1 result" if results == 1 else f"{results:,} results"
        ax.set_title(f"{shared} shared, N = {degree:,}", **LARGE)
        ax.legend(**BESIDE | {"fontsize": 14, "labelspacing": 1})
    return fig


def nothing(ax: Axes, low: float) -> None:
    """The part of the axes where no bit after the binary point is left."""
    ax.axhline(0, color="black", linewidth=1.2)
    ax.axhspan(low, 0, facecolor="none", edgecolor=COLORS["baseline"], hatch="//", alpha=0.3, linewidth=0)
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 3}
    words = {"transform": ax.transAxes, "fontsize": 14, "bbox": box, "va": "bottom"}
    ax.text(0.02, 0.03, "nothing left after the point", **words)
