"""Published set-ups of private learning on MNIST, measured again: private PCA, a small CNN, PATE, accounting."""

import statistics
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
import torch
from scipy.optimize import brentq
from torch import Tensor, nn

from spai_lab.data import Dataset, load
from spai_lab.metrics import Z_95, Rate, accuracy_rate
from spai_lab.models import Normalize, initialized, mlp
from spai_lab.privacy.accounting import (
    ORDERS,
    dp_sgd_guarantee,
    epsilon_of_rdp,
    noise_for,
    overhead,
    rdp_gaussian,
    rdp_guarantee,
    rdp_sampled_gaussian,
)
from spai_lab.privacy.dp_sgd import dp_sgd
from spai_lab.privacy.guarantee import ADD_REMOVE, REPLACE
from spai_lab.privacy.pate import public_pool, train_teachers
from spai_lab.privacy.pate_bounds import log_q_lnmax, rdp_lnmax
from spai_lab.privacy.pate_votes import lnmax, votes
from spai_lab.survey.backdoors import Measured
from spai_lab.survey.defense_models import seeded
from spai_lab.survey.measure import counted, load_measurement, results_file, rows_of_kind
from spai_lab.training import fit

DELTA = 1e-5
OLDER = "mironov"  # the conversion to epsilon that these publications had
PCA_RATE, PCA_CLIP, PCA_HIDDEN, AXES = 0.01, 4.0, 1000, 60
EPOCH = 100  # steps
FALLING = [0.1 - 0.0048 * epoch for epoch in range(10)]  # learning rates of ten epochs, then it stays at...
LAST_RATE = 0.052
CNN_SAMPLING = 0.004
TEACHERS, SCALE, QUERIES, POOL = 250, 20.0, 100, 9_000
MOMENTS = np.arange(2.0, 10.0)  # orders that the publication's accountant looked at
ACCOUNTS = {"11": (256 / 60_000, 1.1, 14_062), "13": (256 / 60_000, 1.3, 3_515), "4": (0.01, 4.0, 10_000)}


def all_training(data: Dataset) -> tuple[Tensor, Tensor]:
    """Training and validation part together: nothing is chosen here, all settings are the published ones."""
    return torch.cat([data.x_train, data.x_val]), torch.cat([data.y_train, data.y_val])


# --- private PCA ------------------------------------------------------------------------------------------------------


def private_axes(x: Tensor, count: int, *, noise_multiplier: float, generator: torch.Generator) -> Tensor:
    r"""Principal axes `(D, count)` of the sum of outer products with noise, $\sum_i x_i x_i^\top + E$.

    Rows are scaled to norm 1, so that one record more or less moves the sum by $\|x x^\top\|_F = 1$ at most: that is
    the sensitivity of the entries on and above the diagonal, which get Gaussian noise and are copied below.
    """
    rows = x.flatten(1).double()
    rows = rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-12)
    noise = noise_multiplier * torch.randn(rows.shape[1], rows.shape[1], generator=generator, dtype=torch.float64)
    noisy = rows.T @ rows + noise.triu() + noise.triu(1).T
    return torch.linalg.eigh(noisy).eigenvectors[:, -count:]


def steps_within(epsilon: float, *, sigma: float, axes_sigma: float) -> float:
    """How many steps, after the axes, keep to the budget under the older conversion; a step's fraction is left."""
    left = epsilon - overhead(ORDERS, DELTA, OLDER) - rdp_gaussian(axes_sigma)
    return float((left / rdp_sampled_gaussian(PCA_RATE, sigma)).max())


@dataclass(frozen=True)
class PrivatePca:
    """A network on private principal axes, trained until the budget is spent.

    Reference: Abadi 2016, arXiv 1607.00133, section 5.2 and figure 3. Simplified: one clip for all layers together.

    Args:
        budget: what axes and weights may spend together, at delta 1e-5, by the older conversion.
        sigma: the published noise of the training, in units of the clip; None takes what spends `budget` just in time.
        axes_sigma: noise of the axes.
        epochs: of 100 steps; None goes on as long as the budget lasts.
        records: training images.
    """

    budget: float
    sigma: float | None
    axes_sigma: float
    epochs: int | None = None
    records: int = 60_000

    @property
    def key(self) -> dict:
        """Its fields."""
        return {"kind": "pca", **asdict(self)}

    def run(self, seed: int) -> dict:
        """What was spent, by the older conversion and by the tighter one, and the accuracy on the test part."""
        data, generator = load("mnist"), seeded(seed)
        x, y = (part[: self.records] for part in all_training(data))
        sigma, steps = self.noise_and_steps()
        model = on_axes(private_axes(x, AXES, noise_multiplier=self.axes_sigma, generator=generator), generator)
        left = steps
        for rate, most in (*((rate, EPOCH) for rate in FALLING), (LAST_RATE, steps)):
            count = min(most, left)
            left -= count
            if count:
                dp_sgd(
                    *(model, x, y),
                    noise_multiplier=sigma,
                    clip=PCA_CLIP,
                    sampling_rate=PCA_RATE,
                    steps=count,
                    learning_rate=rate,
                    delta_dp=DELTA,
                    generator=generator,
                    progress=False,
                )
        rdp = rdp_gaussian(self.axes_sigma) + steps * rdp_sampled_gaussian(PCA_RATE, sigma)
        covers = ("the principal axes", "the weights after every step")
        spent, tighter = (
            rdp_guarantee(rdp, delta_dp=DELTA, covers=covers, conversion=conversion).epsilon
            for conversion in (OLDER, "canonne")
        )
        accuracy = counted(accuracy_rate(model, data.x_test, data.y_test))
        return {"noise_multiplier": round(sigma, 4), "steps": steps, **told(spent, tighter), "accuracy": accuracy}

    def noise_and_steps(self) -> tuple[float, int]:
        """The noise, and how long the budget lasts with it."""
        within = partial(steps_within, self.budget, axes_sigma=self.axes_sigma)
        if self.sigma is not None:
            steps = int(within(sigma=self.sigma))
            return self.sigma, steps if self.epochs is None else min(steps, self.epochs * EPOCH)
        steps = self.epochs * EPOCH
        return brentq(lambda sigma: within(sigma=sigma) - steps - 1, 0.5, 100.0), steps


def on_axes(axes: Tensor, generator: torch.Generator) -> nn.Module:
    """From images to their parts along the axes, which stay, to 1,000 ReLU, to logits."""
    features, count = axes.shape
    with torch.device("meta"):
        layers = [nn.Flatten(), nn.Linear(features, count), nn.Linear(count, PCA_HIDDEN), nn.ReLU()]
        layers.append(nn.Linear(PCA_HIDDEN, 10))
    model = initialized(layers, generator)
    with torch.no_grad():
        model[1].weight.copy_(axes.T)
        model[1].bias.zero_()
    model[1].requires_grad_(False)
    return model


def told(spent: float, tighter: float) -> dict:
    """A guarantee of private training as a row holds it."""
    return {"epsilon": spent, "epsilon_tighter": tighter, "delta_dp": DELTA, "adjacency": ADD_REMOVE}


# --- a small CNN ------------------------------------------------------------------------------------------------------


def small_cnn(generator: torch.Generator | None = None) -> nn.Module:
    """The network of the examples of TensorFlow Privacy and Opacus: two convolutions, 32 units, 26,010 parameters."""
    with torch.device("meta"):
        layers = [
            *[Normalize(), nn.Conv2d(1, 16, 8, stride=2, padding=3), nn.ReLU(), nn.MaxPool2d(2, 1)],
            *[nn.Conv2d(16, 32, 4, stride=2), nn.ReLU(), nn.MaxPool2d(2, 1), nn.Flatten()],
            *[nn.Linear(512, 32), nn.ReLU(), nn.Linear(32, 10)],
        ]
    return initialized(layers, generator)


@dataclass(frozen=True)
class SmallCnn:
    """The CNN at the settings of Opacus' example, examples/mnist_README.md: sigma, clip, learning rate, epochs.

    Args:
        budget: the published epsilon at delta 1e-5, by the older conversion.
        sigma: the published noise in units of the clip; None takes what `budget` needs for so many epochs.
        clip: the clipping norm.
        learning_rate: of every step.
        epochs: of 250 steps.
        records: training images.
    """

    budget: float
    sigma: float | None
    clip: float
    learning_rate: float
    epochs: int
    records: int = 60_000

    @property
    def key(self) -> dict:
        """Its fields."""
        return {"kind": "cnn", **asdict(self)}

    def run(self, seed: int) -> dict:
        """What was spent, by the older conversion and by the tighter one, and the accuracy on the test part."""
        data, generator = load("mnist"), seeded(seed)
        x, y = (part[: self.records] for part in all_training(data))
        how = {"sampling_rate": CNN_SAMPLING, "steps": round(self.epochs / CNN_SAMPLING)}
        sigma = self.sigma
        if sigma is None:
            sigma = noise_for(epsilon=self.budget, delta_dp=DELTA, **how, conversion=OLDER)
        how["noise_multiplier"] = sigma
        model = small_cnn(generator)
        settings = {"clip": self.clip, "learning_rate": self.learning_rate, "generator": generator, "progress": False}
        dp_sgd(model, x, y, **how, **settings, delta_dp=DELTA)
        spent, tighter = (
            dp_sgd_guarantee(**how, delta_dp=DELTA, conversion=conversion).epsilon for conversion in (OLDER, "canonne")
        )
        accuracy = counted(accuracy_rate(model, data.x_test, data.y_test))
        return {"noise_multiplier": round(sigma, 4), **told(spent, tighter), "accuracy": accuracy}


# --- PATE -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PublishedPate:
    """250 teachers who vote with Laplace noise on 100 of 9,000 public images; 1,000 others judge the student.

    Reference: Papernot 2016, arXiv 1610.05755, section 4. Simplified: the student learns from the 100 images alone.

    Args:
        teachers: how many.
        hidden: units of each of an MLP's two hidden layers, teachers and student alike.
        epochs: of each teacher.
        learning_rate: of each teacher.
    """

    teachers: int = TEACHERS
    hidden: int = 100
    epochs: int = 20
    learning_rate: float = 3e-3

    @property
    def key(self) -> dict:
        """Its fields."""
        return {"kind": "pate", **asdict(self)}

    def run(self, seed: int) -> dict:
        """Right answers of each teacher and of the student; the epsilon of these votes, and of other hundreds."""
        data, generator = load("mnist"), seeded(seed)
        x, y = all_training(data)
        judged, public = public_pool(data, POOL, generator=generator)

        def build(generator: torch.Generator) -> nn.Module:
            return mlp(data.shape, data.num_classes, hidden=self.hidden, generator=generator)

        learning = {"epochs": self.epochs, "learning_rate": self.learning_rate, "progress": False}
        taught = train_teachers(x, y, self.teachers, build, **learning, generator=generator)
        right = sum(
            (taught.logits(part).argmax(2) == of).sum(1)
            for part, of in zip(data.x_test.split(1000), data.y_test.split(1000), strict=True)
        )
        counts = votes(taught, public)
        labels = lnmax(counts[:QUERIES], scale=SCALE, generator=generator)
        student = build(generator)
        learning = {"epochs": 100, "batch_size": 20, "learning_rate": 5e-3}
        fit(student, public[:QUERIES], labels, **learning, generator=generator, progress=False)
        accuracy = accuracy_rate(student.eval(), judged.x_test, judged.y_test)

        def spent(chosen: Tensor, orders: np.ndarray = MOMENTS) -> float:
            rdp = rdp_lnmax(log_q_lnmax(counts[chosen], SCALE), SCALE, orders).sum(axis=0)
            return round(epsilon_of_rdp(orders, rdp, DELTA, OLDER)[0], 4)

        asked = torch.arange(QUERIES)
        drawn = [spent(torch.randperm(POOL, generator=generator)[:QUERIES]) for _ in range(200)]
        return {
            "teachers_right": right.tolist(),
            "accuracy": counted(accuracy),
            "epsilon": spent(asked),
            "epsilon_all_orders": spent(asked, ORDERS),
            "epsilon_of_hundreds": [float(np.quantile(drawn, share)) for share in (0.025, 0.5, 0.975)],
            "sanitized": False,
            "delta_dp": DELTA,
            "adjacency": REPLACE,
        }


PCA_RUNS = {
    "05": PrivatePca(0.5, 8.0, 16.0),
    "2": PrivatePca(2.0, 4.0, 7.0),
    "8": PrivatePca(8.0, None, 4.0, epochs=300),
}
CNN_RUNS = {
    "116": SmallCnn(1.16, 1.3, 1.5, 0.25, 15),
    "291": SmallCnn(2.91, None, 1.0, 0.15, 30),
    "686": SmallCnn(6.86, 0.7, 1.5, 0.25, 45),
}
CLIPS = {"pca": "one clip for all layers, theirs one a layer", "cnn": ""}
RUNS = {"pca": "", "cnn": "; one run, theirs the mean of ten"}
PUBLISHED_EPOCHS = {"pca-8": 712, "cnn-291": 60}  # of those that have fewer here; what the first one's budget lasts for


def published_jobs() -> tuple[PrivatePca | SmallCnn | PublishedPate, ...]:
    """What is trained; the accounting is computed."""
    return (*PCA_RUNS.values(), *CNN_RUNS.values(), PublishedPate())


# --- beside what was published ----------------------------------------------------------------------------------------


def private_compared() -> Iterator[tuple[str, Rate | Measured, str, str]]:
    """By the id of a published figure: what we measured, our set-up, and what that differs in."""
    for name, (q, sigma, steps) in ACCOUNTS.items():
        for conversion in ("mironov", "canonne"):
            how = {"sampling_rate": q, "noise_multiplier": sigma, "steps": steps, "conversion": conversion}
            epsilon = dp_sgd_guarantee(**how, delta_dp=DELTA).epsilon
            yield f"accounting-{name}-{conversion}", Measured(epsilon, 1, (epsilon, epsilon)), "the same, computed", ""
    if not results_file("private_mnist").exists():
        return
    measured = load_measurement("private_mnist")
    for kind, runs in (("pca", PCA_RUNS), ("cnn", CNN_RUNS)):
        for name, job in runs.items():
            for row in rows_of_kind(measured, kind):
                if row.items() >= job.key.items():
                    yield (
                        *(f"dp-sgd-{kind}-{name}", Rate(*row["accuracy"]), f"{spent_words(row)}{RUNS[kind]}"),
                        "; ".join(filter(None, [CLIPS[kind], differs_in(f"{kind}-{name}", row)])),
                    )
    for row in rows_of_kind(measured, "pate"):
        low, _, high = row["epsilon_of_hundreds"]
        each = [hits / 10_000 for hits in row["teachers_right"]]
        mean, half = statistics.mean(each), Z_95 * statistics.stdev(each) / len(each) ** 0.5
        network = f"MLP, {row['hidden']} units twice"
        yield (
            *("pate-student-100", Rate(*row["accuracy"]), f"{network}, {QUERIES} labels"),
            f"no GAN, the student sees {QUERIES} images; spent {row['epsilon']:.2f}",
        )
        votes_of = f"{network}; for these votes, not sanitized"
        yield "pate-epsilon-100", Measured(row["epsilon"], QUERIES, (low, high)), votes_of, "other teachers"
        yield "pate-teachers", Measured(mean, 10_000, (mean - half, mean + half)), network, "an MLP in place of a CNN"


def spent_words(row: dict) -> str:
    """What a private training spent, by both conversions."""
    return f"epsilon {row['epsilon']:.3g}, by the tighter conversion {row['epsilon_tighter']:.3g}"


def differs_in(name: str, row: dict) -> str:
    """What a run has otherwise than published: fewer epochs, and so less noise for the same budget."""
    if name not in PUBLISHED_EPOCHS:
        return ""
    return f"{row['epochs']} epochs in place of {PUBLISHED_EPOCHS[name]}, noise {row['noise_multiplier']:.2f} to fit"
