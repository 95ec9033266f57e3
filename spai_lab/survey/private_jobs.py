r"""What is measured of private learning: the three places for the noise, at one budget on the same records.

Every guarantee speaks of one record replaced, the function level's own neighbors: DP-SGD is given half of $\epsilon$
for one record added or removed, which `as_replacement` turns into the whole. A data set's last training images are
PATE's public ones, without labels; no other method gets them. Settings are chosen on the validation part, which counts
as public: had it been private, the choice would have to be paid for too. Test images and labels are looked at once,
when everything is trained.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import lru_cache, partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from spai_lab.data import load
from spai_lab.metrics import accuracy_rate
from spai_lab.models import initialized
from spai_lab.privacy.accounting import noise_for
from spai_lab.privacy.dp_sgd import dp_sgd
from spai_lab.privacy.functional_mechanism import functional_mechanism, minimum, sensitivity, taylor_coefficients
from spai_lab.privacy.guarantee import Guarantee, as_replacement
from spai_lab.privacy.objective_perturbation import (
    LinearOnBall,
    Release,
    check_records,
    minimized,
    objective_perturbation,
    one_vs_rest,
    pooling,
    unit_ball,
)
from spai_lab.privacy.pate import train_teachers
from spai_lab.privacy.pate_bounds import gnmax_guarantee
from spai_lab.privacy.pate_votes import gnmax, votes
from spai_lab.survey.defense_models import seeded
from spai_lab.survey.measure import Job, counted
from spai_lab.training import fit

DELTA = 1e-5
BUDGETS = (None, 8.0, 4.0, 2.0, 1.0, 0.5)  # None: without privacy
TASKS = {"even or odd": 2, "ten digits": 10}
RECORDS = {"digits": (878,), "mnist": (5_000, 50_000)}
PUBLIC = {"digits": 200, "mnist": 5_000}
POOLED = 4  # images of 28 x 28 become 7 x 7 for whatever is linear
CLIP = 1.0
TRAININGS = {"digits": 10, "mnist": 5}
TRIES = {"digits": 5, "mnist": 3}  # trainings of each setting, before the validation part chooses

Setting = dict[str, float]


# --- the records ------------------------------------------------------------------------------------------------------


class Seen(NamedTuple):
    """Images, the same as rows of norm at most 1, and labels."""

    images: Tensor
    rows: Tensor
    y: Tensor


@dataclass(frozen=True, eq=False)
class Records:
    """All that a method may learn from; there is no test part in it.

    Args:
        private: what the guarantee is about.
        public: rows without labels, for PATE's student alone.
        validation: what settings are chosen on.
        classes: of the task.
    """

    private: Seen
    public: Tensor
    validation: Seen
    classes: int


@lru_cache(maxsize=8)
def records(name: str, count: int, task: str) -> Records:
    """The first training images, the last ones without labels, and the validation part."""
    data = load(name)
    private = seen(data.x_train[:count], data.y_train[:count], task)
    public = on_ball(data.x_train[-PUBLIC[name] :])
    return Records(private, public, seen(data.x_val, data.y_val, task), TASKS[task])


def seen(x: Tensor, y: Tensor, task: str) -> Seen:
    """Images and labels as the task has them."""
    return Seen(x, on_ball(x), y % 2 if TASKS[task] == 2 else y)


def on_ball(x: Tensor) -> Tensor:
    """Images pooled to 7 x 7 and scaled to norm 1 each, which costs no budget, as `(N, 1, 1, 49)`."""
    return unit_ball(x, projection=pooling(tuple(x.shape[1:]), POOLED)).float()[:, None, None]


# --- the methods ------------------------------------------------------------------------------------------------------


class Learned(NamedTuple):
    """A model, what it promises, and what else a row tells of it."""

    model: nn.Module
    guarantee: Guarantee | None
    more: dict


Learn = Callable[[Records, float | None, Setting, int], Learned]


def linear(classes: int, generator: torch.Generator | None = None) -> nn.Module:
    """Softmax regression of rows, without biases, as the function level has it; it starts at zero."""
    layer = nn.utils.skip_init(nn.Linear, 49, classes, bias=False)
    nn.init.zeros_(layer.weight)
    return nn.Sequential(nn.Flatten(), layer)


def network(classes: int, generator: torch.Generator | None = None) -> nn.Module:
    """Images of 14 x 14 and 32 hidden units: as small as a network may be that sees a shape."""
    with torch.device("meta"):
        layers = [nn.AvgPool2d(2), nn.Flatten(), nn.Linear(196, 32), nn.Tanh(), nn.Linear(32, classes)]
    return initialized(layers, generator)


def by_gradients(
    build: Callable[..., nn.Module], view: str, parts: Records, epsilon: float | None, setting: Setting, seed: int
) -> Learned:
    """DP-SGD; without privacy the usual training of the same model."""
    x, y, generator = getattr(parts.private, view), parts.private.y, seeded(seed)
    model = build(parts.classes, generator)
    if epsilon is None:
        fit(model, x, y, **setting, batch_size=max(50, len(x) // 100), generator=generator, progress=False)
        return Learned(model.eval(), None, {})
    budget, delta_dp = before_replacement(epsilon)
    how = {name: setting[name] for name in ("sampling_rate", "steps")}
    how |= {"noise_multiplier": noise_for(epsilon=budget, delta_dp=delta_dp, **how), "clip": CLIP}
    how |= {"learning_rate": setting["learning_rate"], "delta_dp": delta_dp}
    history = dp_sgd(model, x, y, **how, generator=generator, progress=False)
    more = {"noise_multiplier": round(how["noise_multiplier"], 4), "own": stated(history.guarantee)}
    return Learned(model.eval(), as_replacement(history.guarantee), more)


def before_replacement(epsilon: float) -> tuple[float, float]:
    """The budget for one record added or removed that `as_replacement` turns into `epsilon` at `DELTA`."""
    return epsilon / 2, DELTA / (1 + math.exp(epsilon / 2))


def by_function(
    release: Callable[..., Release],
    plain: Callable[..., Tensor],
    parts: Records,
    epsilon: float | None,
    setting: Setting,
    seed: int,
) -> Learned:
    """One private learner for two classes; one for each of ten against the rest, which share the budget."""
    x, y, classes = parts.private.rows.flatten(1), parts.private.y, parts.classes
    if epsilon is None:
        targets = [y] if classes == 2 else [(y == k).long() for k in range(classes)]
        weights = torch.stack([plain(x, target, **setting) for target in targets])
        return Learned(LinearOnBall(weights[0] if classes == 2 else weights), None, {})
    learn = partial(release, **setting, generator=seeded(seed))
    if classes == 2:
        released = learn(x, y, epsilon=epsilon)
        return Learned(LinearOnBall(released.weights), released.guarantee, {})
    weights, guarantee = one_vs_rest(learn, x, y, classes=classes, epsilon=epsilon)
    return Learned(LinearOnBall(weights), guarantee, {})


def plain_logistic(x: Tensor, y: Tensor, *, regularization: float) -> Tensor:
    """The minimum that objective perturbation tilts."""
    x, s = check_records(x, y)
    return minimized(x, s, x.new_zeros(x.shape[1]), regularization)[0]


def paper_polynomial(x: Tensor, y: Tensor, *, strength: float, epsilon: float, generator: torch.Generator) -> Release:
    """The functional mechanism, with so many standard deviations of its noise as regularization; the paper has 4."""
    std = math.sqrt(2) * sensitivity(x.shape[1]) / epsilon
    return functional_mechanism(x, y, epsilon=epsilon, regularization=strength * std, generator=generator)


def plain_polynomial(x: Tensor, y: Tensor, *, regularization: float) -> Tensor:
    """The polynomial's minimum without noise; regularization for each record."""
    alpha, M = taylor_coefficients(x, y)
    return minimum(alpha, M + regularization * len(x) * torch.eye(len(M), dtype=M.dtype))[0]


def by_labels(parts: Records, epsilon: float | None, setting: Setting, seed: int) -> Learned:
    """PATE: teachers and student are linear too; without privacy the votes get no noise."""
    teachers, queries = int(setting["teachers"]), int(setting["queries"])
    x, counts, generator = parts.public[:queries], cast(parts, teachers, seed)[:queries], seeded(seed)
    guarantee, more, labels = None, {}, counts.argmax(1)
    if epsilon is not None:
        sigma = votes_noise(epsilon, queries)
        labels = gnmax(counts, sigma=sigma, generator=generator)
        guarantee = gnmax_guarantee(counts, sigma=sigma, delta_dp=DELTA)
        these = gnmax_guarantee(counts, sigma=sigma, delta_dp=DELTA, data_dependent=True)
        more = {"sigma": round(sigma, 2), "these votes, not sanitized": round(these.epsilon, 4)}
    student = linear(parts.classes)
    learning = {"batch_size": max(20, queries // 20), "learning_rate": 0.1, "weight_decay": 1e-3}
    fit(student, x, labels, epochs=50, **learning, generator=generator, progress=False)
    return Learned(student.eval(), guarantee, more)


@lru_cache(maxsize=64)
def cast(parts: Records, teachers: int, seed: int) -> Tensor:
    """The teachers' votes on all public rows."""
    x, y, build = parts.private.rows, parts.private.y, partial(linear, parts.classes)
    learning = {"epochs": 40, "learning_rate": 0.05}
    taught = train_teachers(x, y, teachers, build, **learning, generator=seeded(seed), progress=False)
    return votes(taught, parts.public)


def votes_noise(epsilon: float, queries: int) -> float:
    r"""The noise with which `gnmax` answers so many queries for `epsilon`: each a Gaussian of distance $\sqrt{2}$."""
    return math.sqrt(2) * noise_for(epsilon=epsilon, delta_dp=DELTA, sampling_rate=1.0, steps=queries)


def stated(guarantee: Guarantee) -> dict:
    """A guarantee as a row holds it."""
    return {name: getattr(guarantee, name) for name in ("epsilon", "delta_dp", "adjacency")}


# --- the settings -----------------------------------------------------------------------------------------------------


def steps_of(*settings: tuple[float, int, float]) -> tuple[Setting, ...]:
    """Settings of DP-SGD from sampling rate, steps and learning rate."""
    return tuple(dict(zip(("sampling_rate", "steps", "learning_rate"), each, strict=True)) for each in settings)


def teachers_of(*settings: tuple[int, int]) -> tuple[Setting, ...]:
    """Settings of PATE from the teachers and the queries that are put to them."""
    return tuple({"teachers": teachers, "queries": queries} for teachers, queries in settings)


REGULARIZATION = tuple({"regularization": strength} for strength in (1e-4, 1e-3, 1e-2, 1e-1))
USUAL = tuple({"epochs": 30, "learning_rate": rate} for rate in (0.01, 0.03, 0.3))
STRENGTH = tuple({"strength": strength} for strength in (1.0, 4.0, 16.0, 64.0, 256.0))


@dataclass(frozen=True)
class Method:
    """A way to learn in private.

    Args:
        level: where the noise goes: "gradient", "function" or "label".
        learn: from records, budget, setting and seed to a model.
        settings: what the validation part may choose from, by the number of records.
        view: what its models see, "rows" or "images".
        plain: settings without privacy, where they are others.
    """

    level: str
    learn: Learn
    settings: dict[int, tuple[Setting, ...]] = field(repr=False)
    view: str = "rows"
    plain: tuple[Setting, ...] = ()


METHODS = {
    "DP-SGD": Method(
        "gradient",
        partial(by_gradients, linear, "rows"),
        {
            878: steps_of((1.0, 30, 3.0), (1.0, 30, 10.0), (0.25, 100, 3.0), (0.25, 100, 10.0)),
            5_000: steps_of((0.5, 50, 10.0), (0.1, 200, 10.0), (0.1, 200, 30.0)),
            50_000: steps_of((0.02, 300, 10.0), (0.02, 300, 30.0)),
        },
        plain=USUAL,
    ),
    "DP-SGD, network": Method(
        "gradient",
        partial(by_gradients, network, "images"),
        {
            878: steps_of((1.0, 30, 1.0), (0.25, 100, 1.0), (0.25, 100, 3.0)),
            5_000: steps_of((0.5, 50, 2.0), (0.1, 200, 2.0), (0.1, 200, 5.0)),
            50_000: steps_of((0.02, 300, 4.0), (0.02, 300, 8.0)),
        },
        "images",
        USUAL,
    ),
    "objective perturbation": Method(
        "function",
        partial(by_function, objective_perturbation, plain_logistic),
        dict.fromkeys((878, 5_000, 50_000), REGULARIZATION),
        plain=tuple({"regularization": strength} for strength in (1e-6, 1e-5, 1e-4)),
    ),
    "functional mechanism": Method(
        "function",
        partial(by_function, paper_polynomial, plain_polynomial),
        dict.fromkeys((878, 5_000, 50_000), STRENGTH),
        plain=tuple({"regularization": strength} for strength in (1e-6, 1e-5, 1e-4)),
    ),
    "PATE": Method(
        "label",
        by_labels,
        {
            878: teachers_of((40, 50), (40, 100), (80, 50), (80, 100)),
            5_000: teachers_of((50, 100), (200, 100), (200, 300), (200, 1000)),
            50_000: teachers_of((250, 1000), (1000, 300), (1000, 1000), (1000, 3000)),
        },
    ),
}


@dataclass(frozen=True)
class Private:
    """One method at one budget on one task.

    Args:
        data: name of the data set.
        records: how many private ones.
        task: one of `TASKS`.
        method: one of `METHODS`.
        epsilon: the budget, for one record replaced; None without privacy.
    """

    data: str
    records: int
    task: str
    method: str
    epsilon: float | None

    @property
    def key(self) -> dict:
        """Its fields."""
        return {"kind": "private", **asdict(self)}

    def run(self, seed: int) -> dict:
        """The chosen setting, what it promises, and the test accuracy of each training, hits and trials."""
        method = METHODS[self.method]
        parts = records(self.data, self.records, self.task)
        learn = partial(method.learn, parts, self.epsilon)
        x_val, y_val = getattr(parts.validation, method.view), parts.validation.y
        plain, found = self.epsilon is None and method.plain, []
        settings = plain or method.settings[self.records]
        for setting in settings:
            tries = [learn(setting, 1000 * (seed + 1) - 1 - k).model for k in range(TRIES[self.data])]
            found.append(sum(accuracy_rate(model, x_val, y_val).hits for model in tries))
        chosen = settings[found.index(max(found))]
        learned = [learn(chosen, 1000 * seed + k) for k in range(TRAININGS[self.data])]

        data = load(self.data)
        test = seen(data.x_test, data.y_test, self.task)
        x, y = getattr(test, method.view), test.y
        guarantee = learned[0].guarantee
        return {
            "level": method.level,
            **({"delta_dp": None, "adjacency": None} if guarantee is None else stated(guarantee)),
            "epsilon": self.epsilon,
            "spent": None if guarantee is None else guarantee.epsilon,
            "setting": chosen,
            "validation": [[hits, TRIES[self.data] * len(y_val)] for hits in found],
            "public": int(chosen["queries"]) if method.level == "label" else 0,
            "accuracy": [counted(accuracy_rate(each.model, x, y)) for each in learned],
            "more": [each.more for each in learned],
        }


def private_jobs(name: str) -> tuple[Job, ...]:
    """Every method at every budget, on both tasks; on MNIST the published set-ups too."""
    from spai_lab.survey.private_published import published_jobs

    levels = (
        Private(name, count, task, method, epsilon)
        for count in RECORDS[name]
        for task in TASKS
        for method in METHODS
        for epsilon in BUDGETS
    )
    return (*levels, *(published_jobs() if name == "mnist" else ()))
