"""The trigger painter: paint a backdoor's trigger, train a victim on it, and compare what the paintings open."""

import html
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import lru_cache

import ipywidgets as widgets
import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from torch import Tensor, nn

from spai_lab.attacks.poisoning.backdoors import badnets, square_trigger
from spai_lab.attacks.poisoning.poisoned import Trigger, backdoor_rate, one_target, stamp
from spai_lab.data import Dataset, load
from spai_lab.figures import sayings
from spai_lab.metrics import Rate, accuracy_rate
from spai_lab.style import COLORS, MARKERS, Backdrop, frame, image_colors, outcome, panels, styled
from spai_lab.training import Recipe, train
from spai_lab.widgets.choices import image_options, offline_datasets, sample_images, starting_dataset
from spai_lab.widgets.explorable import Explorable, describe_error

TARGET = 0
RECIPE = Recipe("mlp", epochs=8, batch_size=32, learning_rate=3e-3)
TRAINING, VALIDATION, TESTING, IMAGES = 2000, 200, 500, 20
ATTACKER, VICTIM = 1, 2  # seeds: the attacker has not seen the victim's
SIZES = (1, 8)
LEVELS = tuple(round(0.1 * level, 1) for level in range(11))
FRACTIONS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1)
ROWS = 6


@dataclass(frozen=True)
class Painting:
    """What the attacker chooses: a square on the images of a data set, and how many of them carry it.

    Args:
        dataset: "digits" or "mnist".
        row, column: of the square's upper left pixel.
        size: its side, in pixels.
        shade: of its pixels, in [0, 1].
        blend: how much of each pixel it takes, above 0, at most 1.
        fraction: share of the training images that are poisoned.
    """

    dataset: str
    row: int = 24
    column: int = 24
    size: int = 3
    shade: float = 1.0
    blend: float = 1.0
    fraction: float = 0.05

    @property
    def trigger(self) -> Trigger:
        """The square; `ValueError` if it does not fit."""
        square = asdict(self)
        shape = small(square.pop("dataset")).shape
        square.pop("fraction")
        return square_trigger(shape, **square)

    @property
    def looks(self) -> str:
        """Size, shade, blend and fraction in words."""
        return f"{self.size} × {self.size}, shade {self.shade:g}, blend {self.blend:g}; {100 * self.fraction:g} %"


@dataclass(frozen=True, eq=False)
class Victim:
    """A model trained on what the attacker left, and how it does.

    Args:
        painting: the attacker's.
        model: the victim.
        success: how many stamped test images it takes for the target; those of the target class are not counted.
        accuracy: how many clean test images it gets right.
        innocent: as `success`, of the clean model.
    """

    painting: Painting
    model: nn.Module
    success: Rate
    accuracy: Rate
    innocent: Rate


@lru_cache(maxsize=2)
def small(dataset: str) -> Dataset:
    """As many images as train within seconds, and a fair sample of the test images."""
    data = load(dataset).first(TRAINING)
    x_test, y_test = data.sample(TESTING)
    return replace(
        data, x_val=data.x_val[:VALIDATION], y_val=data.y_val[:VALIDATION], x_test=x_test, y_test=y_test
    )  # fmt: skip


@lru_cache(maxsize=2)
def clean(dataset: str) -> tuple[nn.Module, Rate]:
    """The victim trained on clean data, and its accuracy."""
    data = small(dataset)
    model, _ = train(RECIPE, data, seed=VICTIM, progress=False)
    return model, accuracy_rate(model, data.x_test, data.y_test)


@lru_cache(maxsize=32)
def victim(painting: Painting) -> Victim:
    """Poison the training images with a painting, train on them, and measure.

    Args:
        painting: the attacker's.
    Returns:
        the victim; the last 32 are kept.
    Raises:
        ValueError: the painting's square does not fit, or no image may be poisoned.
    """
    data, trigger = small(painting.dataset), painting.trigger
    wanted = one_target(TARGET, data.num_classes)
    generator = torch.Generator().manual_seed(ATTACKER)
    poisoned = badnets(data, fraction=painting.fraction, wanted=wanted, trigger=trigger, generator=generator)
    model, _ = train(RECIPE, poisoned.within(data), seed=VICTIM, progress=False)
    x, y = data.x_test, data.y_test
    return Victim(
        painting,
        model,
        success=backdoor_rate(model, x, y, trigger, wanted),
        accuracy=accuracy_rate(model, x, y),
        innocent=backdoor_rate(clean(painting.dataset)[0], x, y, trigger, wanted),
    )


@lru_cache(maxsize=256)
@torch.no_grad()
def shown(painting: Painting, image: int) -> Tensor:
    """One of the data set's images, stamped, `(1, C, H, W)`.

    Raises:
        ValueError: there is no such image.
    """
    x, _, _ = sample_images(painting.dataset, IMAGES)
    if image not in range(len(x)):
        raise ValueError(f"image is {image!r}; accepted: 0 to {len(x) - 1}")
    return stamp(x[[image]], painting.trigger)


@torch.no_grad()
def says(model: nn.Module, x: Tensor, classes: tuple[str, ...]) -> str:
    """What a model says of one image."""
    return sayings(model(x).softmax(1), classes)[0]


IMAGE = 4.2  # inches: 15 screen pixels for each of the image's 28
SMALL = 0.56  # two for each
CHART = 3.1
PLACES = {"image": (0.3, 1.0, IMAGE, IMAGE), "chart": (8.35, 1.0, CHART, IMAGE)}
THUMBS = 5.0  # where the small images begin, in inches
SUCCESS = {"color": COLORS["poisoned"], "marker": MARKERS["poisoned"], "markersize": 13}
ACCURACY = {"color": COLORS["clean"], "marker": MARKERS["clean"], "markersize": 10}
CLEAN = {"color": COLORS["baseline"], "linestyle": "--", "linewidth": 2}


@lru_cache(maxsize=8)
def backdrop(victims: tuple[Victim, ...], image: int) -> Backdrop:
    """What painting does not change: the rows of what was trained, the latest on top."""
    height = IMAGE / ROWS
    tops = [PLACES["chart"][1] + IMAGE - (place + 1) * height for place in range(len(victims))]
    thumbs = {f"thumb {place}": (THUMBS, top + 0.07, SMALL, SMALL) for place, top in enumerate(tops)}
    fig, axes = panels(11.8, 6.0, **PLACES, **thumbs)
    _, accuracy = clean(victims[-1].painting.dataset)
    with styled():
        frame(axes["image"], "poisoned", width=6)
        ax = axes["chart"]
        ax.set(xlim=(-3, 103), ylim=(ROWS - 0.5, -0.5), xticks=[0, 25, 50, 75, 100], yticks=[])
        ax.set_xlabel("% of the test images")
        ax.spines["left"].set_visible(False)
        ax.axvline(100 * accuracy.value, **CLEAN)
        at, beside = ax.get_yaxis_transform(), (THUMBS + SMALL + 0.12 - PLACES["chart"][0]) / CHART
        row = {"transform": at, "fontsize": 12.5, "va": "center", "clip_on": False}
        if len(victims) < ROWS:
            ax.text(beside, len(victims), "paint another, and press Train", color=COLORS["baseline"], **row)
        for place, past in enumerate(reversed(victims)):
            axes[f"thumb {place}"].imshow(image_colors(shown(past.painting, image)[0]))
            frame(axes[f"thumb {place}"], "poisoned", width=2)
            for rate, look in ((past.success, SUCCESS), (past.accuracy, ACCURACY)):
                low, high = (100 * edge for edge in rate.interval)
                ax.plot(100 * rate.value, place, markeredgecolor="white", linestyle="", clip_on=False, **look)
                ax.plot([low, high], [place, place], color="black", linewidth=1.5, zorder=5, clip_on=False)
            first, _, second = past.painting.looks.partition("; ")
            words = f"{first}\n{second} poison: success {100 * past.success.value:.0f} %"
            ax.text(beside, place, words, gid=f"row {place}", **row)
            if place:
                line = {"color": "#dddddd", "linewidth": 1, "clip_on": False, "transform": at}
                ax.add_line(Line2D([(THUMBS - PLACES["chart"][0]) / CHART, 1], [place - 0.5] * 2, **line))
        handles = [
            Line2D([], [], linestyle="", label="attack success", **SUCCESS),
            Line2D([], [], linestyle="", label="clean accuracy", **ACCURACY),
            Line2D([], [], label="clean model's accuracy", **CLEAN),
            Line2D([], [], color="black", linewidth=1.5, label="95 % interval"),
        ]
        fig.legend(handles=handles, loc="lower right", ncols=4, columnspacing=1.2, handletextpad=0.4)
    return Backdrop.of(fig, axes)


def render(painting: Painting, image: int, victims: tuple[Victim, ...]) -> Figure:
    """The stamped image as painted, beside the results of what was trained.

    Args:
        painting: as the controls say.
        image: which of the test images, 0 to `IMAGES - 1`.
        victims: trained before on the same data, the latest last; at least one.
    Returns:
        the figure. Its parts have names (gid): the image "image", the square's "edge" on it, the words "last" and
        "clean" of what the models say of it, and "state", whether a victim was trained on this painting.
    Raises:
        ValueError: names the argument.
    """
    victims = victims[-ROWS:]
    behind, x = backdrop(victims, image), shown(painting, image)
    _, y, classes = sample_images(painting.dataset, IMAGES)
    trained = matching(painting, victims)
    judge = trained or victims[-1]
    answers = {"last": says(judge.model, x, classes), "clean": says(clean(painting.dataset)[0], x, classes)}
    with torch.no_grad():
        fooled = int(judge.model(x).argmax(1)) == TARGET != int(y[image])
    role, mark = outcome(fooled)
    with styled():
        fig = behind.picture()
        behind.lay_image(fig, "image", image_colors(x[0]), gid="image")
        ax, corner = behind.axes["image"], behind.axes["image"].transAxes
        pixel = 1 / x.shape[-1]
        at = (painting.column * pixel, 1 - (painting.row + painting.size) * pixel)
        edge = {"fill": False, "edgecolor": COLORS["poisoned"], "linewidth": 2.5, "linestyle": ":", "gid": "edge"}
        fig.add_artist(Rectangle(at, painting.size * pixel, painting.size * pixel, transform=ax.transAxes, **edge))
        by = "the victim" if trained else "the last victim"
        words = f"{mark} a {classes[y[image]]}; {by} says {answers['last']}"
        fig.text(0, 1.04, words, transform=corner, fontsize=15, weight="bold", color=COLORS[role], gid="last")
        words = f"the clean model says {answers['clean']}"
        fig.text(0, -0.04, words, transform=corner, fontsize=15, va="top", gid="clean")
        state = f"success {percent(trained.success)}" if trained else "not trained yet"
        start = (THUMBS - PLACES["image"][0]) / IMAGE
        fig.text(start, 1.04, f"this painting: {state}", transform=corner, fontsize=16, weight="bold", gid="state")
    return fig


def matching(painting: Painting, victims: tuple[Victim, ...]) -> Victim | None:
    """The victim that was trained on this painting, if there is one."""
    return next((past for past in victims if past.painting == painting), None)


def percent(rate: Rate) -> str:
    """A rate with its interval, in words.

    >>> percent(Rate(83, 100))
    '83 % (74 to 89)'
    """
    low, high = rate.interval
    return f"{100 * rate.value:.0f} % ({100 * low:.0f} to {100 * high:.0f})"


def verdict(painting: Painting, image: int, victims: tuple[Victim, ...]) -> str:
    """In words: what the painting opens and costs, or that it was not trained yet."""
    classes = small(painting.dataset).classes
    poisons = f"{painting.fraction:.1%} of the training images".replace(".0%", "%").replace("%", " %")
    trained = matching(painting, victims)
    if trained is None:
        return (
            f"You would stamp this square at row {painting.row}, column {painting.column} on {poisons} and call them "
            f"{classes[TARGET]}. Guess what comes of it, then press Train. Until then the last victim, whose trigger "
            "was another one, says what it sees."
        )
    _, accuracy = clean(painting.dataset)
    lost = accuracy.hits - trained.accuracy.hits
    low, high = accuracy.interval
    seen = "within" if low <= trained.accuracy.value <= high else "outside of"
    return (
        f"With this square on {poisons}, the victim takes {percent(trained.success)} of the stamped test images for a "
        f"{classes[TARGET]}; the clean model takes {percent(trained.innocent)}. Without the square the victim reads "
        f"{percent(trained.accuracy)} rightly, the clean model {percent(accuracy)}: {abs(lost)} of {accuracy.trials} "
        f"images {'fewer' if lost >= 0 else 'more'}, {seen} the clean model's interval. In brackets: 95 % intervals."
    )


def describe(painting: Painting, image: int, victims: tuple[Victim, ...]) -> str:
    """The picture for somebody who cannot see it."""
    _, y, classes = sample_images(painting.dataset, IMAGES)
    rows = [
        f"{past.painting.looks} at row {past.painting.row}, column {past.painting.column}: success "
        f"{percent(past.success)}, clean accuracy {percent(past.accuracy)}"
        for past in reversed(victims[-ROWS:])
    ]
    last = says(victims[-1].model, shown(painting, image), classes)
    return (
        f"A {classes[y[image]]} of {painting.dataset} with a square of {painting.looks} poison, its upper left pixel "
        f"at row {painting.row}, column {painting.column}; the victim trained last says {last}. Beside it a chart of "
        f"what was trained, the latest first. {'; '.join(rows)}."
    )


def trigger_painter(dataset: str | None = None) -> Explorable:
    """The explorable: paint a trigger, press Train, and compare attack success and clean accuracy.

    Args:
        dataset: "digits" or "mnist" to start with; None takes what `load()` finds.
    Returns:
        the widget. Its button is the last but one of the controls, its line of status the last.
    Raises:
        ValueError: names the argument.
    """
    start = starting_dataset(dataset)
    side = small(start).shape[-1]
    _, y, _ = sample_images(start, IMAGES)
    levels = [(f"{level:g}", level) for level in LEVELS]
    fractions = [(f"{100 * fraction:g} %", fraction) for fraction in FRACTIONS]
    first = Painting(start)
    controls = {
        "dataset": widgets.Dropdown(description="data set", options=offline_datasets(), value=start),
        "image": widgets.Dropdown(
            description="image", options=image_options(start, IMAGES), value=int((y != TARGET).nonzero()[0])
        ),
        "row": widgets.IntSlider(description="row", min=0, max=side - first.size, value=first.row),
        "column": widgets.IntSlider(description="column", min=0, max=side - first.size, value=first.column),
        "size": widgets.IntSlider(description="size", min=SIZES[0], max=SIZES[1], value=first.size),
        "shade": widgets.SelectionSlider(description="shade", options=levels, value=first.shade),
        "blend": widgets.SelectionSlider(description="blend", options=levels[1:], value=first.blend),
        "fraction": widgets.SelectionSlider(description="poison", options=fractions, value=first.fraction),
    }
    button = widgets.Button(description="Train", tooltip="Train a victim on this painting", button_style="primary")
    status = widgets.HTML()
    past: dict[str, tuple[Victim, ...]] = {start: (victim(first),)}

    def painted() -> Painting:
        return Painting(**{name: control.value for name, control in controls.items() if name != "image"})

    def remember(new: Victim) -> None:
        name = new.painting.dataset
        others = tuple(old for old in past.get(name, ()) if old is not new)
        past[name] = (*others, new)[-ROWS:]

    def adapt(name: str) -> None:
        if name == "dataset":
            controls["image"].options = image_options(controls["dataset"].value, IMAGES)
            if controls["dataset"].value not in past:
                remember(victim(painted()))
        if name == "size":
            for place in ("row", "column"):
                controls[place].max = side - controls["size"].value

    def of_painting(show: Callable[..., object]) -> Callable[..., object]:
        return lambda image, **square: show(Painting(**square), image, past[square["dataset"]])

    def say(text: str) -> None:
        status.value = f'<span class="spai-status" role="status">{html.escape(text)}</span>'

    def press(_: object) -> None:
        button.disabled = True
        say("training a victim …")
        try:
            remember(victim(painted()))
            painter.draw()
            say("")
        except KeyboardInterrupt:
            say("Stopped. A second click starts again.")
        except Exception as error:  # an error in a button's callback is shown to nobody else
            say(f"The training failed. {describe_error(error)}")
        finally:
            button.disabled = False

    button.on_click(press)
    painter = Explorable(
        of_painting(render),
        controls,
        alt=of_painting(describe),
        caption=of_painting(verdict),
        slow=("dataset",),
        adapt=adapt,
        beside=[button, status],
    )
    return painter
