"""The sides explorer: an image as the client sees it, who has the key, and as the server does, who computes on it."""

import math
from dataclasses import dataclass
from functools import lru_cache

import ipywidgets as widgets
import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Polygon, Rectangle
from matplotlib.ticker import MaxNLocator
from scipy import stats

from spai_lab.checks import check_choice, check_count
from spai_lab.checks import describe as describe_value
from spai_lab.crypto.ckks import (
    Ciphertext,
    decode,
    decrypt,
    public_key,
    relinearization_key,
    rotation_keys,
    secret_key,
)
from spai_lab.crypto.ckks_encoding import encode
from spai_lab.crypto.ckks_headers import RESIDUE
from spai_lab.crypto.ckks_keys import PublicKey, RelinearizationKey, RotationKeys, SecretKey
from spai_lab.crypto.ckks_messages import ciphertext_to_bytes
from spai_lab.crypto.encrypted_layout import recommended_context
from spai_lab.crypto.encrypted_mlp import EncodedNetwork, encode_network, encrypt_image, encrypted_stages
from spai_lab.crypto.rns import column
from spai_lab.crypto.square_network import (
    SquareWeights,
    hidden_values,
    square_logits,
    train_square_network,
    weights_of,
)
from spai_lab.data import Dataset, load
from spai_lab.metrics import chi_square
from spai_lab.style import COLORS, Backdrop, image_colors, panels, styled
from spai_lab.widgets.explorable import Explorable

HIDDEN, EPOCHS = 32, 15
STAGES = {
    "sent": ("what is sent", "64 pixels"),
    "first": ("after layer 1", "32 hidden values"),
    "square": ("after the square", "32 squares"),
    "logits": ("the logits", "10 logits"),
}
ENCRYPTIONS = 6  # of each image: the first, and five more
CELLS = 64  # equal parts of a modulus, among which residues are counted
USUAL = 0.95  # how often even draws stay in the interval that is told
SHAPE = (64, 128)  # of the picture of a polynomial's 8,192 residues
SHOWN_BYTES = 12


# --- both parties -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Parties:
    """A client's keys, a server's network, and the images; in one process here, which is what no server may be.

    Args:
        data: the raw digits.
        weights: of the network, in the clear.
        secret: stays with the client.
        public, relinearization, rotations: go to the server.
        network: the weights, encoded.
    """

    data: Dataset
    weights: SquareWeights
    secret: SecretKey
    public: PublicKey
    relinearization: RelinearizationKey
    rotations: RotationKeys
    network: EncodedNetwork


@lru_cache(maxsize=1)
def parties() -> Parties:
    """Train the network, and make fresh keys with 128-bit security; kept while the kernel runs."""
    data = load("digits", raw=True)
    generator = torch.Generator().manual_seed(0)
    training = {"hidden": HIDDEN, "epochs": EPOCHS, "generator": generator}
    weights = weights_of(train_square_network(data.x_train, data.y_train, **training))
    context = recommended_context(*weights.sizes)
    secret, network = secret_key(context), encode_network(context, weights)
    server = public_key(secret), relinearization_key(secret), rotation_keys(secret, network.layout.rotations)
    return Parties(data, weights, secret, *server, network)


@lru_cache(maxsize=1)
def images() -> tuple[int, ...]:
    """The first test image of each class, by its number."""
    y = parties().data.y_test.tolist()
    return tuple(y.index(label) for label in sorted(set(y)))


@dataclass(frozen=True, eq=False)
class Sight:
    """A ciphertext at one stage: what the client reads in it, and what the server sees of it.

    Args:
        values: what it decrypts to, in the slots that count.
        true: the same in the clear.
        error: how wrong the worst of them is.
        bound: how wrong any can be, but with a probability of 1e-9 for each operation.
        residues: of the first polynomial modulo the first prime, as shares of it, in [0, 1), `SHAPE`.
        counts: how many of all residues fall into each of `CELLS` equal parts of their modulus.
        first: the bytes of the first residues, as they travel.
        size: bytes of the whole message.
        level, scale: which the server knows.
    """

    values: np.ndarray
    true: np.ndarray
    error: float
    bound: float
    residues: np.ndarray
    counts: np.ndarray
    first: bytes
    size: int
    level: int
    scale: float

    @property
    def chi2(self) -> float:
        """How uneven the counts are."""
        return chi_square(self.counts)


def cell_counts(residues: np.ndarray, primes: tuple[int, ...]) -> np.ndarray:
    """How many residues, `(..., L, N)`, fall into each of 64 equal parts of their modulus: their top six bits, nearly.

    >>> cell_counts(np.array([[0, 1, 127]]), (128,))[[0, 63]].tolist()
    [2, 1]
    """
    return np.bincount((residues * CELLS // column(primes)).ravel(), minlength=CELLS)


def usual_chi_square() -> tuple[float, float]:
    """Between which ends even draws leave the statistic in 95 % of all cases; their primes are no multiples of 64, but
    so large that it makes no difference.

    >>> [round(end) for end in usual_chi_square()]
    [43, 87]
    """
    low, high = stats.chi2.interval(USUAL, CELLS - 1)
    return float(low), float(high)


def usual_correlation() -> float:
    """What size the correlation of two unrelated pictures stays below in 95 % of all cases."""
    return float(stats.norm.interval(USUAL)[1] / math.sqrt(math.prod(SHAPE)))


@lru_cache(maxsize=1)
def without_key(image: int) -> float:
    """The statistic of the same image if it is encoded, but not encrypted."""
    both = parties()
    context, layout = both.secret.context, both.network.layout
    pixels = both.data.x_test[image].double().flatten().numpy()
    plaintext = encode(context, np.tile(pixels, layout.slots // layout.D), limit=1.0)
    return chi_square(cell_counts(plaintext.values, context.primes))


@lru_cache(maxsize=10 * ENCRYPTIONS)
def journey(image: int, encryption: int) -> dict[str, Sight]:
    """One encryption of an image, from the client through the network and back; kept.

    Args:
        image: one of `images()`.
        encryption: from 1 to `ENCRYPTIONS`; each has randomness of its own.
    Returns:
        what both sides see, by stage.
    Raises:
        ValueError: names the argument.
    """
    check_setting(image, "sent", encryption)
    both = parties()
    x, layout, weights = both.data.x_test[[image]], both.network.layout, both.weights
    hidden = hidden_values(weights, x)[0]
    rows = layout.B * np.arange(layout.hidden)
    reads = {
        "sent": (np.arange(layout.inputs), x.double().flatten()),
        "first": (rows, hidden),
        "square": (rows, hidden**2),
        "logits": (np.arange(layout.classes), square_logits(weights, x)[0]),
    }
    sent = encrypt_image(both.public, layout, x[0])
    computed = {"sent": sent} | encrypted_stages(both.network, sent, both.relinearization, both.rotations)
    return {stage: sight(both.secret, computed[stage], slots, true.numpy()) for stage, (slots, true) in reads.items()}


def sight(secret: SecretKey, x: Ciphertext, slots: np.ndarray, true: np.ndarray) -> Sight:
    """A ciphertext from both sides."""
    plaintext, message = decrypt(secret, x), ciphertext_to_bytes(x)
    values, primes = decode(plaintext)[slots].real, x.context.at(x.level)
    start = len(message) - RESIDUE.itemsize * x.parts.size
    return Sight(
        values,
        true,
        error=float(np.abs(values - true).max()),
        bound=float(np.broadcast_to(plaintext.error, x.context.slots)[slots].max()),
        residues=(x.parts[0, 0] / primes[0]).reshape(SHAPE),
        counts=cell_counts(x.parts, primes),
        first=message[start : start + SHOWN_BYTES],
        size=len(message),
        level=x.level,
        scale=x.scale,
    )


def correlation(one: Sight, other: Sight) -> float:
    """How far two pictures go together, from -1 to 1."""
    return float(np.corrcoef(one.residues.ravel(), other.residues.ravel())[0, 1])


def check_setting(image: int, stage: str, encryption: int) -> None:
    """`ValueError` unless all of these are on the controls."""
    if image not in images():
        raise ValueError(f"image is {describe_value(image)}; accepted: {', '.join(map(str, images()))}")
    check_choice("stage", stage, tuple(STAGES))
    check_count("encryption", encryption)
    if encryption > ENCRYPTIONS:
        raise ValueError(f"encryption is {encryption}; accepted: 1 to {ENCRYPTIONS}")


# --- the picture ------------------------------------------------------------------------------------------------------

WIDTH, HEIGHT = 11.8, 6.95
SIDE, COLUMNS = (3.84, 1.92), (3.82, 7.88)
PLACES = {"image": (0.6, 4.15, 1.92, 1.92), "values": (0.75, 0.95, 2.5, 2.35)}
PLACES |= {f"noise {k}": (left, 4.15, *SIDE) for k, left in enumerate(COLUMNS)}
PLACES |= {f"counts {k}": (left, 2.2, SIDE[0], 1.25) for k, left in enumerate(COLUMNS)}
BOLD = {"fontsize": 16, "weight": "bold", "va": "bottom"}
WORDS = {"fontsize": 15, "va": "center"}
TALLEST = 1.4  # times the mean, on the axis of the counts
TRUE = {"color": "black", "marker": "_", "markersize": 5, "markeredgewidth": 1.8, "linestyle": ""}


@lru_cache(maxsize=4 * len(STAGES))
def backdrop(image: int, stage: str) -> Backdrop:
    """What another encryption leaves as it is: the client's side, and the first encryption."""
    both, seen = parties(), journey(image, 1)
    fig, axes = panels(WIDTH, HEIGHT, **PLACES)
    with styled():
        for name, ax in axes.items():
            ax.set(xticks=[], yticks=[])
            if name.startswith("counts"):
                ax.set(xlim=(0, 1), ylim=(0, TALLEST))
                ax.set_xticks([0, 0.5, 1], ["0", "q / 2", "q"], fontsize=14)
                ax.set_yticks([0, 1], ["0", "mean"] if name.endswith("0") else ["", ""], fontsize=13)
        fig.text(0.05, 0.945, "the client, with the key", **BOLD)
        fig.text(COLUMNS[0] / WIDTH, 0.945, f"the server: {STAGES[stage][0]}", **BOLD)
        known = seen[stage]
        words = f"level {known.level}, scale $2^{{{math.log2(known.scale):.0f}}}$, {known.size:,} bytes"
        fig.text(COLUMNS[1] / WIDTH, 0.945, words, fontsize=15, va="bottom")
        axes["counts 0"].set_title("how often residues of each size occur", fontsize=15)
        draw_values(axes["values"], seen[stage], stage)
        label, read = int(both.data.y_test[image]), int(seen["logits"].values.argmax())
        for height, words in ((0.7, f"a {label}"), (0.4, f"read as\na {read}"))[: 2 if stage == "logits" else 1]:
            axes["image"].text(1.08, height, words, transform=axes["image"].transAxes, **WORDS)
        behind = Backdrop.of(fig, axes)
        picture = behind.picture()
        behind.lay_image(picture, "image", image_colors(both.data.x_test[image]))
        behind.lay_frame(picture, "image", "clean")
        lay_server(picture, behind, 0, 1, seen[stage])
    return Backdrop.of(picture, axes)


def draw_values(ax: Axes, seen: Sight, stage: str) -> None:
    """What the client decrypts, as bars; what comes out in the clear, as dashes."""
    places = np.arange(len(seen.values))
    colors = [COLORS["clean"]] * len(places)
    if stage == "logits":
        colors = [COLORS["clean"] if place == seen.values.argmax() else COLORS["baseline"] for place in places]
        ax.set_xticks(places)
    else:
        ax.set_xticks(places[:: len(places) // 4])
    ax.bar(places, seen.values, 0.8, color=colors)
    ax.plot(places, seen.true, label="in the clear", **TRUE)
    ax.axhline(0, color="black", linewidth=1)
    ax.yaxis.set_major_locator(MaxNLocator(4))
    ax.tick_params(labelsize=13)
    ax.set_title(f"{STAGES[stage][1]}\n(– in the clear)", fontsize=15)
    ax.set_xlabel(f"error {seen.error:.0e}, bound {seen.bound:.0e}", fontsize=14)


def render(image: int, stage: str, encryption: int) -> Figure:
    """One image from both sides: what the client decrypts, and two encryptions as the server sees them.

    Args:
        image: the number of a test image, one of `images()`.
        stage: how far it has come, one of `STAGES`.
        encryption: which of its encryptions to show beside the first, from 2 to `ENCRYPTIONS`; 1 shows the same twice.
    Returns:
        the figure. Its parts have names (gid): "residues" (the picture of the other encryption), "counts", "band",
        "chi", "bytes" and "alike" (the words under it).
    Raises:
        ValueError: names the argument.
    """
    check_setting(image, stage, encryption)
    first, other = (journey(image, which)[stage] for which in (1, encryption))
    behind = backdrop(image, stage)
    with styled():
        fig = behind.picture()
        lay_server(fig, behind, 1, encryption, other)
        words = f"correlation of the two pictures: {correlation(first, other):.3f}"
        words = f"{words} (usual: −{usual_correlation():.3f} to {usual_correlation():.3f})"
        lay_line(fig, 3, 0, words.replace("-", "−"), gid="alike")
    return fig


def lay_server(fig: Figure, behind: Backdrop, place: int, encryption: int, seen: Sight) -> None:
    """An encryption as the server sees it: residues in gray, how often each size occurs, and the first bytes."""
    behind.lay_image(fig, f"noise {place}", mpl.colormaps["gray"](seen.residues, bytes=True), gid="residues")
    behind.lay_frame(fig, f"noise {place}", "private")
    ax = behind.axes[f"counts {place}"]
    fig.text(
        0, 1.03, f"encryption {encryption}", transform=behind.axes[f"noise {place}"].transAxes, va="bottom", fontsize=15
    )
    heights, edges = seen.counts / seen.counts.mean(), np.linspace(0, 1, CELLS + 1)
    outline = [(0, 0), *zip(np.repeat(edges, 2)[1:-1], np.repeat(heights, 2), strict=True), (1, 0)]
    here = {"transform": ax.transData, "clip_box": ax.bbox}
    fig.add_artist(Polygon(outline, facecolor=COLORS["private"], alpha=0.55, gid="counts", **here))
    spread = stats.norm.interval(USUAL)[1] * math.sqrt((1 - 1 / CELLS) / seen.counts.mean())
    band = {"facecolor": "none", "edgecolor": "black", "linewidth": 1.5, "linestyle": (0, (4, 2)), "gid": "band"}
    fig.add_artist(Rectangle((0, 1 - spread), 1, 2 * spread, **band, **here))
    low, high = usual_chi_square()
    lay_line(fig, 1, place, f"χ² = {seen.chi2:.0f} (usual: {low:.0f} to {high:.0f})", gid="chi", weight="bold")
    lay_line(fig, 2, place, seen.first.hex(" ", RESIDUE.itemsize) + " …", gid="bytes", family="monospace")


def lay_line(fig: Figure, line: int, place: int, words: str, **look: object) -> None:
    """A line of words under one of the encryptions."""
    fig.text(COLUMNS[place] / WIDTH, (1.95 - 0.43 * line) / HEIGHT, words, **WORDS | look)


# --- its words --------------------------------------------------------------------------------------------------------


def verdict(image: int, stage: str, encryption: int) -> str:
    """In words: what the client reads, what the server has, and what its evenness proves, which is not much."""
    check_setting(image, stage, encryption)
    first, other = (journey(image, which)[stage] for which in (1, encryption))
    both, (low, high) = parties(), usual_chi_square()
    where, what = STAGES[stage]
    residues = int(first.counts.sum())
    told = (
        f"Image {image}, a {int(both.data.y_test[image])}, {where}: the client, who has the key, reads {what}, at most "
        f"{first.error:.1e} wrong, with a bound of {first.bound:.1e}. "
    )
    if stage == "logits":
        told += f"The largest says {int(first.values.argmax())}. "
    told += (
        f"The server has {residues:,} residues in {first.size:,} bytes, and a level, a scale and bounds that depend on "
        f"no image. Sorted by size into {CELLS} equal parts, the residues of encryption 1 give a chi-square of "
        f"{first.chi2:.1f}, those of encryption {encryption} {other.chi2:.1f}; even draws stay between {low:.0f} and "
        f"{high:.0f} in {100 * USUAL:.0f} % of all cases{unusual(first, other)}. "
    )
    if stage == "sent":
        told += f"Encoded, but not encrypted, this image gives {without_key(image):,.0f}. "
    if encryption == 1:
        told += "The picture beside it is the same encryption: move the slider for another. "
    else:
        apart = float(np.abs(first.values - other.values).max())
        told += (
            f"The two have a correlation of {correlation(first, other):.3f}, of unrelated ones it is within "
            f"{usual_correlation():.3f} of 0 as often; they decrypt to the same numbers, but for {apart:.1e}. "
        )
    return told + "That it passes a test is no proof: that nobody can tell it from chance is an assumption, ring-LWE."


def unusual(*seen: Sight) -> str:
    """What to say of statistics outside the usual interval."""
    low, high = usual_chi_square()
    outside = any(not low <= each.chi2 <= high for each in seen)
    return ", so that one in twenty lies outside, as one does here" if outside else ""


def describe(image: int, stage: str, encryption: int) -> str:
    """The picture for somebody who cannot see it."""
    check_setting(image, stage, encryption)
    first, other = (journey(image, which)[stage] for which in (1, encryption))
    where, what = STAGES[stage]
    label = int(parties().data.y_test[image])
    numbers = "" if stage != "logits" else ": " + ", ".join(f"{value:.1f}" for value in first.values)
    bytes_of = [each.first.hex(" ", RESIDUE.itemsize) for each in (first, other)]
    return (
        f"Left, the client: image {image}, a {label}, and bars of {what} as decrypted{numbers}. Right, the server, "
        f"{where}: residues of encryption 1 and of encryption {encryption} as two pictures of gray noise in which "
        f"nothing is seen; under each a flat histogram, chi-square {first.chi2:.0f} and {other.chi2:.0f}; first bytes "
        f"{' and '.join(bytes_of)}; {first.size:,} bytes each, at level {first.level}."
    )


def sides_explorer() -> Explorable:
    """The explorable: follow an image through encrypted inference, from the client's side and from the server's.

    Returns:
        the widget.
    """
    y = parties().data.y_test
    options = [(f"{place}: a {int(y[place])}", place) for place in images()]
    controls = {
        "image": widgets.Dropdown(description="image", options=options, value=images()[2]),
        "stage": widgets.SelectionSlider(
            description="stage", options=[(where, stage) for stage, (where, _) in STAGES.items()]
        ),
        "encryption": widgets.IntSlider(description="encryption", min=1, max=ENCRYPTIONS, value=2),
    }

    def adapt(name: str) -> None:
        if name == "image":
            prepare(controls["image"].value)

    prepare(controls["image"].value)
    return Explorable(render, controls, alt=describe, caption=verdict, adapt=adapt, slow=("image",))


def prepare(image: int) -> None:
    """Encrypt an image again and again, send it through the network, and draw what the sliders leave as it is."""
    for encryption in range(1, ENCRYPTIONS + 1):
        journey(image, encryption)
    for stage in STAGES:
        backdrop(image, stage)
    without_key(image)
