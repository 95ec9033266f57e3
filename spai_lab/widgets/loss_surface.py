"""The loss around one image: along the direction that an attack found, and along a random one."""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import ipywidgets as widgets
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from torch import Tensor

from spai_lab.checks import NORMS, check_choice, check_number
from spai_lab.figures import sayings
from spai_lab.style import COLORS, MARKERS, SEQUENTIAL, Backdrop, panels, styled
from spai_lab.threat import norms, steepest
from spai_lab.training import reference
from spai_lab.widgets.choices import (
    ATTACK_NAMES,
    ATTACKS,
    MODELS,
    NORM_NAMES,
    image_options,
    invert,
    refill,
    sample_images,
    starting_dataset,
)
from spai_lab.widgets.explorable import Explorable

COMPARED = ("lenet", "lenet-robust")
SPANS = {"linf": (0.4, 0.2, 0.1), "l2": (4.0, 2.0, 1.0)}
IMAGES = 20
STEPS = 16
SIDE = 41


@dataclass(frozen=True, eq=False)
class Surface:
    r"""What a model says on the plane $x + a \, d + b \, r$, clipped to images, for $|a|, |b|$ up to the span.

    Args:
        model, attack, norm: names.
        span: half the width of the plane; also the eps at which the attack looked for its direction.
        classes: names of the K classes.
        y: true label of the image.
        x: the image in the middle, `(C, H, W)`.
        along: the attack's direction d, of length 1 in the norm, like `x`.
        across: a random direction r, orthogonal to it and of length 1 in the norm, like `x`.
        logits: on the plane, `(SIDE, SIDE, K)`; rows go with b, columns with a.
        eps: radii from 0 to the span.
        walked: logits at the points a = eps, b = 0, `(len(eps), K)`.
        note: what the attack warned of, or nothing.
    """

    model: str
    attack: str
    norm: str
    span: float
    classes: tuple[str, ...]
    y: int
    x: Tensor
    along: Tensor
    across: Tensor
    logits: Tensor
    eps: tuple[float, ...]
    walked: Tensor
    note: str

    @property
    def loss(self) -> Tensor:
        """Cross-entropy on the plane, `(SIDE, SIDE)`."""
        return losses(self.logits, self.y)

    def at(self, a: Tensor, b: Tensor) -> Tensor:
        """The images at the points (a, b) of the plane, `(N, C, H, W)`."""
        return points(self.x, self.along, self.across, a, b)

    def outline(self, eps: float) -> np.ndarray:
        """Where the ball of radius `eps` cuts the plane, `(2, 181)`: all points whose change has exactly that size."""
        angle = torch.linspace(0, 2 * math.pi, 181)
        turned = torch.stack([angle.cos(), angle.sin()])
        change = torch.einsum("ka,kchw->achw", turned, torch.stack([self.along, self.across]))
        return (turned * eps / norms(change, self.norm)).numpy()


def losses(logits: Tensor, y: int) -> Tensor:
    """Cross-entropy of logits `(..., K)` against one label, `(...)`."""
    return 0 - F.log_softmax(logits, dim=-1)[..., y]


def points(x: Tensor, along: Tensor, across: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """The images at `a` steps along and `b` steps across, clipped to [0, 1]."""
    return (x + a.view(-1, 1, 1, 1) * along + b.view(-1, 1, 1, 1) * across).clamp(0, 1)


def random_across(along: Tensor, norm: str) -> Tensor:
    """A random direction orthogonal to `along`, `(C, H, W)`, of length 1 in the norm; the same for every image."""
    drawn = torch.randn(along.shape, generator=torch.Generator().manual_seed(0))
    across = steepest(drawn[None], norm)[0]
    across = across - along * (across * along).sum() / along.square().sum()
    return across / norms(across[None], norm)


@lru_cache(maxsize=16)
@torch.no_grad()
def surface(dataset: str, model: str, image: int, attack: str, norm: str = "linf", span: float = 0.4) -> Surface:
    """Run the attack at eps = span, and evaluate the model on the plane that its direction and a random one span.

    Args:
        dataset: "digits" or "mnist".
        model: one of `MODELS`, a reference model.
        image: which of the test images, 0 to `IMAGES - 1`.
        attack: one of `ATTACKS`, with as many steps as stand there.
        norm: "linf" or "l2".
        span: half the width of the plane, above 0, in units of the norm.
    Returns:
        the surface; the last sixteen are kept.
    Raises:
        ValueError: names the argument.
    """
    check_choice("model", model, tuple(MODELS))
    check_choice("attack", attack, tuple(ATTACKS))
    check_choice("norm", norm, NORMS)
    check_number("span", span, low=0, high=1 if norm == "linf" else math.inf, exclusive=True)
    images, labels, classes = sample_images(dataset, IMAGES)
    if image not in range(len(images)):
        raise ValueError(f"image is {image!r}; accepted: 0 to {len(images) - 1}")
    x, y = images[image], int(labels[image])
    victim = reference(model, dataset).eval()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        x_adv = ATTACKS[attack](
            victim, x[None], labels[[image]], eps=span, norm=norm, generator=torch.Generator().manual_seed(0)
        )
    delta = x_adv - x
    if not norms(delta, norm) > 0:
        delta = torch.ones_like(delta)  # the attack found no way; its note says why
    along = delta[0] / norms(delta, norm)
    across = random_across(along, norm)
    ticks = torch.linspace(-span, span, SIDE)
    b, a = torch.meshgrid(ticks, ticks, indexing="ij")
    eps = radii_within(span)
    radii = torch.tensor(eps)
    return Surface(
        *(model, attack, norm, span, classes, y, x, along, across),
        logits=victim(points(x, along, across, a.flatten(), b.flatten())).view(SIDE, SIDE, -1),
        eps=eps,
        walked=victim(points(x, along, across, radii, torch.zeros_like(radii))),
        note=str(caught[0].message) if caught else "",
    )


SQUARE = 4.15  # inches
PLACES = {
    "left": (0.95, 0.7, SQUARE, SQUARE),
    "right": (5.55, 0.7, SQUARE, SQUARE),
    "scale": (10.1, 0.7, 0.22, SQUARE),
}
OUTLINED = [withStroke(linewidth=4, foreground="black")]


@lru_cache(maxsize=8)
def backdrop(left: Surface, right: Surface) -> Backdrop:
    """What eps does not change: both planes on one scale of loss, with the borders and the names of their regions."""
    fig, axes = panels(11.2, 5.45, **PLACES)
    highest = max(1.0, float(left.loss.max()), float(right.loss.max()))
    scale = PowerNorm(0.5, 0, highest)
    with styled():
        for name, surface in (("left", left), ("right", right)):
            draw_plane(axes[name], surface, scale)
            axes[name].set_xlabel(f"along the attack, in {NORM_NAMES[surface.norm]}")
        axes["left"].set_ylabel("along a random direction")
        axes["right"].set_yticklabels([])
        ramp = np.linspace(0, highest, 256)[:, None]
        look = {"cmap": SEQUENTIAL, "norm": scale, "extent": (0, 1, 0, highest), "origin": "lower", "aspect": "auto"}
        axes["scale"].imshow(ramp, **look)
        axes["scale"].yaxis.tick_right()
        axes["scale"].set(xticks=[], yticks=tidy_ticks(highest), title="loss")
    return Backdrop.of(fig, axes)


def tidy_ticks(highest: float) -> list[float]:
    """At most six round numbers from 0 up to `highest`.

    >>> tidy_ticks(11.3)
    [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
    """
    power = 10 ** math.floor(math.log10(highest))
    step = next(power * factor for factor in (0.2, 0.25, 0.5, 1, 2, 2.5) if highest / (power * factor) < 6)
    return [round(step * place, 6) for place in range(int(highest / step) + 1)]


def draw_plane(ax: Axes, surface: Surface, scale: PowerNorm) -> None:
    """The loss as shades, the borders between answers as lines, and the answer in each region."""
    span, logits = surface.span, surface.logits
    ax.imshow(
        surface.loss.numpy(), origin="lower", extent=(-span, span, -span, span), cmap=SEQUENTIAL, norm=scale,
        interpolation="bilinear",
    )  # fmt: skip
    ticks = np.linspace(-span, span, SIDE)
    answers = logits.argmax(-1)
    for k in answers.unique().tolist():
        others = logits.clone()
        others[..., k] = -math.inf
        border = (logits[..., k] - others.amax(-1)).numpy()
        if (border > 0).all():
            continue
        lines = ax.contour(ticks, ticks, border, levels=[0], colors="white", linewidths=2.5)
        lines.set(path_effects=OUTLINED)
    for k in answers.unique().tolist():
        rows, columns = torch.nonzero(answers == k, as_tuple=True)
        if len(rows) < 0.03 * SIDE**2:
            continue
        aside = (rows - SIDE // 2).abs() > 0.25 * SIDE  # leaves the middle to the ball and the points
        far = (rows - rows.float().mean()) ** 2 + (columns - columns.float().mean()) ** 2 + SIDE**2 * ~aside
        nearest = int(far.argmin())
        text = ax.text(ticks[columns[nearest]], ticks[rows[nearest]], surface.classes[k], color="white", fontsize=20)
        text.set(ha="center", va="center", weight="bold", path_effects=OUTLINED)
    ax.set(xticks=[-span, -span / 2, 0, span / 2, span], yticks=[-span, -span / 2, 0, span / 2, span])


def render(left: Surface, right: Surface, eps: float) -> Figure:
    """Two surfaces around the same image, with the ball of radius eps and the point that the attack reaches in it.

    Args:
        left, right: surfaces of the same norm and span.
        eps: one of their radii.
    Returns:
        the figure. Its parts have names (gid), each once a panel: "left ball", "left clean", "left adversarial",
        "left says", and the same for "right".
    Raises:
        ValueError: names the argument.
    """
    behind = backdrop(left, right)
    with styled():
        fig = behind.picture()
        for name, surface in (("left", left), ("right", right)):
            step = step_of(surface, eps)
            ax = behind.axes[name]
            place, window = ax.transData, ax.bbox.frozen()
            outline = surface.outline(eps)
            for color, line, width in (("white", "-", 4.5), ("black", "--", 2.2)):
                ball = Line2D(*outline, color=color, linestyle=line, linewidth=width, gid=f"{name} ball")
                ball.set(transform=place, clip_box=window)
                fig.add_artist(ball)
            for role, a in (("clean", 0.0), ("adversarial", eps)):
                look = {"marker": MARKERS[role], "color": COLORS[role], "markersize": 17, "markeredgecolor": "white"}
                point = Line2D([a], [0.0], linestyle="", markeredgewidth=1.8, gid=f"{name} {role}", **look)
                point.set_transform(place)
                fig.add_artist(point)
            words = f"{MODELS[surface.model]} says {says(surface, step)}"
            fig.text(0, 1.05, words, transform=ax.transAxes, fontsize=14, weight="bold", gid=f"{name} says")
    return fig


def says(surface: Surface, step: int) -> str:
    """The answer and the loss at a radius, such as "3 (98 %), loss 0.02"."""
    saying = sayings(surface.walked[[step]].softmax(1), surface.classes)[0]
    return f"{saying}, loss {float(losses(surface.walked[step], surface.y)):.2f}"


def step_of(surface: Surface, eps: float) -> int:
    """Where `eps` is among the radii, after a check."""
    if eps not in surface.eps:
        raise ValueError(f"eps is {eps!r}; accepted: a radius of the grid, 0 to {surface.span:g}")
    return surface.eps.index(eps)


def verdict(left: Surface, right: Surface, eps: float) -> str:
    """In words: what both models say at this radius, and how to read the picture."""
    name = ATTACK_NAMES[left.attack].partition(",")[0]
    shape = {
        "l2": "a circle",
        "linf": "a polygon, nearly a diamond, because the two directions add up in some pixels and cancel in others",
    }[left.norm]
    return " ".join(
        filter(
            None,
            [
                f"At eps {eps:g}: {MODELS[left.model]} says {says(left, step_of(left, eps))};",
                f"{MODELS[right.model]} says {says(right, step_of(right, eps))}.",
                f"To the right each model's loss follows the direction that {name} found for it at eps {left.span:g}.",
                f"The dashed line is where the {NORM_NAMES[left.norm]} ball cuts the plane: {shape}.",
                left.note or right.note,
            ],
        )
    )


def describe(left: Surface, right: Surface, eps: float) -> str:
    """The picture for somebody who cannot see it."""
    parts = []
    for surface in (left, right):
        low, high = surface.loss.min(), surface.loss.max()
        wrong = (surface.logits.argmax(-1) != surface.y).float().mean()
        parts.append(
            f"{MODELS[surface.model]}: the loss goes from {low:.2f} to {high:.2f}, {100 * wrong:.0f} % of the plane is "
            f"another class, and at eps {eps:g} along the attack it says {says(surface, step_of(surface, eps))}"
        )
    return f"Two maps of the loss around the same {left.classes[left.y]}. {'. '.join(parts)}."


def loss_surface(dataset: str | None = None) -> Explorable:
    """The explorable: the loss around an image, for a natural and a robust model side by side.

    Args:
        dataset: "digits" or "mnist"; None takes the one that `load()` takes.
    Returns:
        the widget.
    Raises:
        ValueError: names the argument.
    """
    dataset = starting_dataset(dataset)
    controls = {
        "attack": widgets.Dropdown(description="attack", options=invert(ATTACK_NAMES), value="pgd"),
        "norm": widgets.Dropdown(description="norm", options=invert(NORM_NAMES)),
        "span": widgets.Dropdown(description="span", options=span_options("linf")),
        "image": widgets.Dropdown(description="image", options=image_options(dataset, IMAGES)),
        "eps": widgets.SelectionSlider(description="eps", options=eps_options(SPANS["linf"][0])),
    }
    controls["eps"].index = STEPS // 2

    def adapt(name: str) -> None:
        if name == "norm":
            refill(controls["span"], span_options(controls["norm"].value))
        if name in ("norm", "span"):
            refill(controls["eps"], eps_options(controls["span"].value))

    def of_surfaces(show: Callable[[Surface, Surface, float], object]) -> Callable[..., object]:
        return lambda eps, **setting: show(*(surface(dataset, model, **setting) for model in COMPARED), eps)

    return Explorable(
        of_surfaces(render),
        controls,
        alt=of_surfaces(describe),
        caption=of_surfaces(verdict),
        slow=("attack", "norm", "span", "image"),
        adapt=adapt,
    )


def span_options(norm: str) -> list[tuple[str, float]]:
    """Half the width of the plane, from the widest."""
    return [(f"± {span:g}", span) for span in SPANS[norm]]


def eps_options(span: float) -> list[tuple[str, float]]:
    """The radii that the plane holds."""
    return [(f"{eps:g}", eps) for eps in radii_within(span)]


def radii_within(span: float) -> tuple[float, ...]:
    """Evenly spaced radii from 0 to the span."""
    return tuple(round(span * step / STEPS, 6) for step in range(STEPS + 1))
