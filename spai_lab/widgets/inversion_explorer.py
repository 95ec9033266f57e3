"""The inversion explorer: a picture of a class comes out of a model, iteration by iteration."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import ipywidgets as widgets
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from spai_lab.attacks.privacy.inversion import model_inversion
from spai_lab.checks import check_choice, unsuspecting
from spai_lab.checks import describe as describe_value
from spai_lab.data import Dataset, available, default_name, load
from spai_lab.figures import sayings
from spai_lab.inversion_victims import halved, train_face_victim
from spai_lab.metrics import Rate, accuracy_rate
from spai_lab.style import COLORS, Backdrop, image_colors, panels, styled
from spai_lab.style import frame as framed
from spai_lab.widgets.choices import invert, offline_datasets
from spai_lab.widgets.explorable import Explorable

VICTIMS = {"softmax": "softmax regression", "mlp": "MLP"}
TARGETS = 10  # the first classes; each is drawn by itself
FIRST_TARGET = {"faces": 7}  # where to start, from 0: elsewhere with class 3
STEP_SIZES = {"faces": 2.0, "digits": 0.2, "mnist": 0.2}
STEPS, EVERY, ENOUGH = 400, 5, 0.99
EPOCHS, TRAINING = 20, 1000  # passes over the training part, of which so many pictures are taken


@dataclass(frozen=True, eq=False)
class Drawings:
    """What was drawn of the first classes of a data set, and what the victim says on the way.

    Args:
        dataset: its name.
        victim: its name.
        classes: names of the K classes.
        real: of each target the first training picture, `(T, C, H, W)`.
        of_real: what the victim says of them, `(T, K)`.
        path: what the attacker has drawn, `(S, T, C, H, W)`, from black.
        probabilities: what the victim says of that, `(S, T, K)`.
        likeness: the correlation of each drawing with the mean training picture of each class, `(S, T, K)`.
        iterations: after how many iterations each of the S pictures was taken.
        taken: after how many iterations each target was finished, `(T,)`.
        accuracy: of the victim, on test pictures.
    """

    dataset: str
    victim: str
    classes: tuple[str, ...]
    real: Tensor
    of_real: Tensor
    path: Tensor
    probabilities: Tensor
    likeness: Tensor
    iterations: tuple[int, ...]
    taken: Tensor
    accuracy: Rate

    def frames(self, target: int) -> tuple[int, ...]:
        """After how many iterations there is a picture of this target; the last is what was drawn."""
        end = int(self.taken[target])
        return (*(number for number in self.iterations if number < end), end)

    def confidence(self, target: int) -> Tensor:
        """The probability of the target at each of its frames."""
        return self.probabilities[: len(self.frames(target)), target, target]

    def name(self, target: int) -> str:
        """A class in words.

        Args:
            target: its number.
        Returns:
            such as "person 8", or "a 3".
        """
        return self.classes[target] if self.dataset == "faces" else f"a {self.classes[target]}"


def face_datasets() -> tuple[str, ...]:
    """The data sets that are at hand; the faces first where they are."""
    return ("faces",) * (not isinstance(available()["faces"], str)) + offline_datasets()


@lru_cache(maxsize=3)
def pictures(dataset: str) -> Dataset:
    """The data set as the victims read it: faces of half the size, of the others as many as train in a few seconds."""
    return halved(load(dataset)) if dataset == "faces" else load(dataset).first(TRAINING)


@lru_cache(maxsize=6)
def drawings(dataset: str, victim: str) -> Drawings:
    """Train a victim, and draw the first ten classes from it.

    Args:
        dataset: "faces", "digits" or "mnist".
        victim: one of `VICTIMS`.
    Returns:
        what was drawn; kept.
    Raises:
        ValueError: names the argument.
    """
    check_choice("dataset", dataset, face_datasets())
    check_choice("victim", victim, tuple(VICTIMS))
    data = pictures(dataset)
    model = train_face_victim(victim, data, epochs=EPOCHS, generator=torch.Generator().manual_seed(0), progress=False)
    targets = torch.arange(TARGETS)
    settings = {"shape": data.shape, "steps": STEPS, "threshold": ENOUGH, "step_size": STEP_SIZES[dataset]}
    with unsuspecting():
        drawn = model_inversion(model, targets, logarithm=True, every=EVERY, progress=False, **settings)
    real = data.x_train[[int((data.y_train == target).nonzero()[0]) for target in targets]]
    means = torch.stack([data.x_train[data.y_train == label].mean(0) for label in range(data.num_classes)])
    with torch.no_grad():
        of_real = model(real).softmax(1)
        probabilities = model(drawn.path.flatten(0, 1)).softmax(1).unflatten(0, drawn.path.shape[:2])
    return Drawings(
        *(dataset, victim, data.classes, real, of_real, drawn.path, probabilities),
        likeness=correlations(drawn.path.flatten(0, 1), means).unflatten(0, drawn.path.shape[:2]),
        iterations=drawn.iterations,
        taken=drawn.taken,
        accuracy=accuracy_rate(model, data.x_test, data.y_test),
    )


def correlations(x: Tensor, others: Tensor) -> Tensor:
    """The correlation of the pixels of each picture with those of each other one, `(N, M)`; 0 where one is uniform.

    >>> rising, uniform = torch.tensor([[0.0, 0.1, 0.2]]), torch.full((1, 3), 0.5)
    >>> correlations(rising, torch.cat([3 * rising, 1 - rising, uniform])).round(decimals=3).tolist()
    [[1.0, -1.0, 0.0]]
    """
    x, others = ((images - images.mean(1, keepdim=True)) for images in (x.flatten(1), others.flatten(1)))
    return F.normalize(x) @ F.normalize(others).T


PIXEL = {"faces": 0.06, "digits": 0.11, "mnist": 0.11}  # inches: 6 or 11 screen pixels for each of an image's
LEFT, BOTTOM, GAP, CURVE = 0.2, 1.0, 0.3, 3.7
UNDER = {"ha": "center", "va": "top", "fontsize": 15}
HERE = {"linestyle": "", "marker": "o", "fillstyle": "none", "markersize": 18, "markeredgewidth": 2.5, "color": "black"}


@lru_cache(maxsize=16)
def backdrop(drawings: Drawings, target: int) -> Backdrop:
    """What the iteration leaves as it is: frames, what the victim says of the real picture, and its confidence."""
    height, width = (PIXEL[drawings.dataset] * side for side in drawings.real.shape[-2:])
    drawn = LEFT + width + GAP
    edge = drawn + width + 1.1
    fig, axes = panels(
        edge + CURVE + 1.0,
        BOTTOM + height + 0.55,
        real=(LEFT, BOTTOM, width, height),
        drawn=(drawn, BOTTOM, width, height),
        curve=(edge, BOTTOM, CURVE, height),
    )
    with styled():
        for name, role in (("real", "clean"), ("drawn", "adversarial")):
            framed(axes[name], role, width=6)
        above(fig, axes["real"], "a training picture", color=COLORS["clean"])
        below(fig, axes["real"], sayings(drawings.of_real[[target]], drawings.classes)[0])
        ax, frames = axes["curve"], drawings.frames(target)
        ax.plot(frames, drawings.confidence(target), color=COLORS["adversarial"])
        ax.set(xlim=(-0.03 * frames[-1], 1.03 * frames[-1]), ylim=(-0.03, 1.03), xlabel="iterations")
        ax.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0 %", "25 %", "50 %", "75 %", "100 %"])
        ax.xaxis.get_major_locator().set_params(integer=True, nbins=5)
        above(fig, ax, f"confidence: {drawings.classes[target]}")
        for words, height, look in (("enough", ENOUGH, ":"), ("chance", 1 / len(drawings.classes), "--")):
            ax.axhline(height, color=COLORS["baseline"], linewidth=2, linestyle=look, zorder=0)
            ax.text(1.06 * frames[-1], height, words, va="center", fontsize=13)
    return Backdrop.of(fig, axes)


def above(fig: Figure, ax: Axes, words: str, **look: object) -> None:
    """A title, 0.12 inches above the axes."""
    height = ax.get_position().height * fig.get_figheight()
    fig.text(0, 1 + 0.12 / height, words, transform=ax.transAxes, fontsize=15, weight="bold", **look)


def below(fig: Figure, ax: Axes, says: str, gid: str | None = None) -> None:
    """What the victim says of a picture, under it."""
    height = ax.get_position().height * fig.get_figheight()
    fig.text(0.5, -0.12 / height, "the victim says", transform=ax.transAxes, **UNDER)
    fig.text(0.5, -0.42 / height, says, transform=ax.transAxes, weight="bold", gid=gid, **UNDER)


def render(drawings: Drawings, target: int, frame: int) -> Figure:
    """A real picture, what was drawn so far, and the victim's confidence along the way.

    Args:
        drawings: from one victim.
        target: which class, 0 to 9.
        frame: which picture of the way, from 0.
    Returns:
        the figure. Its parts have names (gid): the images "real" and "drawn", "title" above and "says" under the
        drawn one, and "present" on the curve.
    Raises:
        ValueError: names the argument.
    """
    iteration = check_frame(drawings, target, frame)
    behind = backdrop(drawings, target)
    with styled():
        fig = behind.picture()
        behind.lay_image(fig, "real", image_colors(drawings.real[target]), gid="real")
        behind.lay_image(fig, "drawn", image_colors(drawings.path[frame, target]), gid="drawn")
        above(fig, behind.axes["drawn"], counted(iteration), color=COLORS["adversarial"], gid="title")
        says = sayings(drawings.probabilities[frame, [target]], drawings.classes)[0]
        below(fig, behind.axes["drawn"], says, gid="says")
        place = [iteration], [drawings.confidence(target)[frame].item()]
        fig.add_artist(Line2D(*place, transform=behind.axes["curve"].transData, gid="present", **HERE))
    return fig


def counted(iteration: int) -> str:
    """How far the drawing is.

    >>> counted(0), counted(1), counted(20)
    ('start: black', 'after 1 iteration', 'after 20 iterations')
    """
    return f"after {iteration} iteration{'' if iteration == 1 else 's'}" if iteration else "start: black"


def check_frame(drawings: Drawings, target: int, frame: int) -> int:
    """The number of iterations of a frame; `ValueError` unless there are such a target and frame."""
    if target not in range(TARGETS):
        raise ValueError(f"target is {describe_value(target)}; accepted: 0 to {TARGETS - 1}")
    frames = drawings.frames(target)
    if frame not in range(len(frames)):
        raise ValueError(f"frame is {describe_value(frame)}; accepted: 0 to {len(frames) - 1}")
    return frames[frame]


def verdict(drawings: Drawings, target: int, frame: int) -> str:
    """In words: how sure the victim is, and how like the truth the drawing has become.

    Args:
        drawings: from one victim.
        target: which class, 0 to 9.
        frame: which picture of the way, from 0.
    Returns:
        a few sentences.
    Raises:
        ValueError: names the argument.
    """
    iteration, name = check_frame(drawings, target, frame), drawings.name(target)
    sure = f"{100 * drawings.confidence(target)[frame]:.0f} %"
    if iteration == 0:
        return (
            f"The attacker starts from black, which the victim takes for {name} with {sure}, and follows the slope of "
            "that confidence. It never sees the picture on the left. Move the iterations."
        )
    likeness = drawings.likeness[frame, target]
    own, place = likeness[target], int((likeness > likeness[target]).sum()) + 1
    everyone = f"the {len(drawings.classes)} {'people' if drawings.dataset == 'faces' else 'classes'}"
    others = "another one" if place == 2 else f"{place - 1} others"
    like = f"most like that of {name}" if place == 1 else f"more like that of {others} than that of {name}"
    words = (
        f"With {sure} the victim takes this for {name}, a picture that nobody has taken. Of the mean training pictures "
        f"of {everyone} it is {like} (correlation {own:.2f})."
    )
    if frame + 1 == len(drawings.frames(target)):
        enough = drawings.confidence(target)[frame] >= ENOUGH - 1e-4  # the stopping rule rounds otherwise
        words += f" Here the search ends: {'that is enough' if enough else f'{STEPS} iterations are all it has'}."
    return f"{words} The victim reads {100 * drawings.accuracy.value:.0f} % of the test pictures rightly."


def describe(drawings: Drawings, target: int, frame: int) -> str:
    """The picture for somebody who cannot see it."""
    iteration, name = check_frame(drawings, target, frame), drawings.name(target)
    confidence = drawings.confidence(target)
    says = sayings(drawings.probabilities[frame, [target]], drawings.classes)[0]
    return (
        f"A training picture of {name} of {drawings.dataset}; beside it what model inversion has drawn of {name} from "
        f"{VICTIMS[drawings.victim]}, {counted(iteration)}: the victim says {says}. A curve of its confidence in "
        f"{name}, from {100 * confidence[0]:.0f} % at the start to {100 * confidence[-1]:.0f} % after "
        f"{drawings.frames(target)[-1]} iterations; here {100 * confidence[frame]:.0f} %."
    )


def inversion_explorer(dataset: str | None = None) -> Explorable:
    """The explorable: watch the picture of a person, or of a digit, come out of a model that has learned it.

    Args:
        dataset: "faces", "digits" or "mnist" to start with; None takes the faces where they are at hand, else what
            `load()` finds.
    Returns:
        the widget.
    Raises:
        ValueError: names the argument.
    """
    choices = face_datasets()
    start = dataset if dataset is not None else choices[0] if choices[0] == "faces" else default_name()
    check_choice("dataset", start, choices)
    target = FIRST_TARGET.get(start, 3)
    frames = frame_options(start, "softmax", target)
    controls = {
        "dataset": widgets.Dropdown(description="pictures", options=choices, value=start),
        "victim": widgets.Dropdown(description="victim", options=invert(VICTIMS)),
        "target": widgets.Dropdown(description="target", options=target_options(start), value=target),
        "frame": widgets.SelectionSlider(description="iterations", options=frames, value=frames[-1][1]),
    }
    play = widgets.Play(min=0, max=len(frames) - 1, value=len(frames) - 1, interval=200, description="Play the attack")
    widgets.jslink((play, "value"), (controls["frame"], "index"))

    def adapt(name: str) -> None:
        dataset, victim, target, frame = controls.values()
        if name == "dataset":
            target.options = target_options(dataset.value)
            target.value = FIRST_TARGET.get(dataset.value, 3)
        if name != "frame":
            frame.options = frame_options(dataset.value, victim.value, target.value)
            frame.index = play.max = len(frame.options) - 1

    def of_drawings(show: Callable[[Drawings, int, int], object]) -> Callable[..., object]:
        return lambda dataset, victim, target, frame: show(drawings(dataset, victim), target, frame)

    return Explorable(
        of_drawings(render),
        controls,
        alt=of_drawings(describe),
        caption=of_drawings(verdict),
        slow=("dataset", "victim"),
        adapt=adapt,
        beside=[play],
    )


def target_options(dataset: str) -> list[tuple[str, int]]:
    """The classes that were drawn."""
    return [(name, target) for target, name in enumerate(pictures(dataset).classes[:TARGETS])]


def frame_options(dataset: str, victim: str, target: int) -> list[tuple[str, int]]:
    """The pictures of a target's way, by the number of iterations."""
    return [(f"{number}", frame) for frame, number in enumerate(drawings(dataset, victim).frames(target))]
