"""MNIST with features that nobody's data chose: private training and PATE on scattering coefficients.

The published budgets again, at delta 1e-5, where the features cost nothing. Settings are chosen on the validation part,
which counts as public; nothing that is learned or chosen depends on a test label or on the label of a public image.
"""

import math
from dataclasses import asdict, dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import stack_module_state

from spai_lab.attacks.privacy.shadows import Shadows
from spai_lab.data import load
from spai_lab.metrics import accuracy_rate
from spai_lab.privacy.accounting import noise_for
from spai_lab.privacy.dp_sgd import dp_sgd
from spai_lab.privacy.guarantee import Guarantee
from spai_lab.privacy.pate_bounds import gnmax_guarantee
from spai_lab.privacy.pate_votes import gnmax, votes
from spai_lab.privacy.scattering import scattered_regression, scattering
from spai_lab.survey.defense_models import seeded
from spai_lab.survey.measure import counted
from spai_lab.survey.private_jobs import DELTA, PUBLIC, stated, votes_noise
from spai_lab.survey.private_published import OLDER, told

BUDGETS = (0.5, 2.0, 8.0)
SAMPLING, EPOCHS, CLIP, MOMENTUM = 0.1, 15, 1.0, 0.9
RATES = (0.1, 0.3, 1.0, 3.0)  # learning rates
TRAININGS = 3

TEACHERS, STRENGTH = 250, 0.1
QUERIES = {2.0: (200, 400, 800), None: (800, 1500, 3000)}  # by budget; None: the votes' noise is given
SIGMA = 40.0


@lru_cache(maxsize=3)
def coefficients(name: str, part: str) -> Tensor:
    """The scattering coefficients of the images of a part, "train", "val" or "test"."""
    return scattering(getattr(load(name), f"x_{part}"), progress=True)


@dataclass(frozen=True)
class ScatteredSgd:
    """DP-SGD of a linear model of scattering coefficients.

    Args:
        data: name of the data set.
        budget: epsilon of the weights, one record added or removed, by the older conversion, which the publication had.
        epochs: as many as there are, on average.
    """

    data: str
    budget: float
    epochs: int = EPOCHS

    @property
    def key(self) -> dict:
        """Its fields."""
        return {"kind": "scattered sgd", **asdict(self)}

    def run(self, seed: int) -> dict:
        """What is promised, the learning rate chosen, and the test accuracy of each training, hits and trials."""
        data, x_val = load(self.data), coefficients(self.data, "val")
        how = {"sampling_rate": SAMPLING, "steps": round(self.epochs / SAMPLING)}
        how["noise_multiplier"] = noise_for(epsilon=self.budget, delta_dp=DELTA, **how, conversion=OLDER)
        found = [accuracy_rate(self.trained(how, rate, choosing(seed))[0], x_val, data.y_val).hits for rate in RATES]
        rate = RATES[found.index(max(found))]
        learned = [self.trained(how, rate, seeded(1000 * seed + k)) for k in range(TRAININGS)]
        x_test = coefficients(self.data, "test")
        return {
            **told(self.budget, learned[0][1].epsilon),
            **how,
            "clip": CLIP,
            "rate": rate,
            "records": len(data.y_train),
            "validation": {f"{rate:g}": [hits, len(data.y_val)] for rate, hits in zip(RATES, found, strict=True)},
            "accuracy": [counted(accuracy_rate(model, x_test, data.y_test)) for model, _ in learned],
        }

    def trained(self, how: dict, learning_rate: float, generator: torch.Generator) -> tuple[nn.Module, Guarantee]:
        """A model, and what its weights promise."""
        data, x = load(self.data), coefficients(self.data, "train")
        model = scattered_regression(tuple(x.shape[1:]), data.num_classes)
        settings = {**how, "clip": CLIP, "learning_rate": learning_rate, "momentum": MOMENTUM, "delta_dp": DELTA}
        history = dp_sgd(model, x, data.y_train, **settings, generator=generator, progress=False)
        return model.eval(), history.guarantee


@dataclass(frozen=True)
class ScatteredPate:
    """PATE with linear teachers of scattering coefficients and a student that trains itself on unlabeled inputs too.

    The last training images are the public ones, without labels; no teacher sees them, and they judge nothing.

    Args:
        data: name of the data set.
        budget: epsilon of all answers whatever the votes are, one record replaced; None takes `SIGMA`.
        teachers: how many.
    """

    data: str
    budget: float | None
    teachers: int = TEACHERS

    @property
    def key(self) -> dict:
        """Its fields."""
        return {"kind": "scattered pate", **asdict(self)}

    def run(self, seed: int) -> dict:
        """What is promised, how many questions were best, and of each run the right answers and the student's."""
        data, x_val = load(self.data), coefficients(self.data, "val")
        x, public = coefficients(self.data, "train").split([len(data.y_train) - PUBLIC[self.data], PUBLIC[self.data]])
        secret = data.y_train[len(x) :]
        tried = votes(self.ensemble(x, data.y_train[: len(x)], choosing(seed)), public)
        found = {}
        for queries in QUERIES[self.budget]:
            student, _ = self.student(tried, public, queries, choosing(seed))
            found[queries] = accuracy_rate(student, x_val, data.y_val).hits
        queries = max(found, key=found.get)
        sigma, x_test = self.noise(queries), coefficients(self.data, "test")
        rows = []
        for generator in (seeded(1000 * seed + k) for k in range(TRAININGS)):
            taught = self.ensemble(x, data.y_train[: len(x)], generator)
            counts = votes(taught, public)
            student, labels = self.student(counts, public, queries, generator)
            these = gnmax_guarantee(counts[:queries], sigma=sigma, delta_dp=DELTA, data_dependent=True)
            each = votes(taught, x_test).gather(1, data.y_test[:, None]).double().mean() / self.teachers
            rows.append(
                {
                    "teachers": round(each.item(), 4),
                    "answers": [int((labels == secret[:queries]).sum()), queries],
                    "these votes, not sanitized": round(these.epsilon, 4),
                    "accuracy": counted(accuracy_rate(student, x_test, data.y_test)),
                }
            )
        return {
            **stated(gnmax_guarantee(tried[:queries], sigma=sigma, delta_dp=DELTA)),  # whatever the votes are
            "sigma": round(sigma, 2),
            "queries": queries,
            "public": len(public),
            "records": len(x),
            "validation": {str(queries): [hits, len(data.y_val)] for queries, hits in found.items()},
            "runs": rows,
        }

    def noise(self, queries: int) -> float:
        """The standard deviation of the noise in votes."""
        return SIGMA if self.budget is None else votes_noise(self.budget, queries)

    def ensemble(self, x: Tensor, y: Tensor, generator: torch.Generator) -> Shadows:
        """Teachers of disjoint parts, each solved for exactly."""
        parts = torch.randperm(len(x), generator=generator).tensor_split(self.teachers)
        inside = torch.zeros(self.teachers, len(x), dtype=torch.bool)
        for number, part in enumerate(parts):
            inside[number, part] = True
        models = [least_squares(x[mask], y[mask]) for mask in inside]
        weights, _ = stack_module_state(models)
        return Shadows(weights, inside, models[0])

    def student(
        self, counts: Tensor, public: Tensor, queries: int, generator: torch.Generator
    ) -> tuple[nn.Module, Tensor]:
        """A student of the noisy answers to so many questions that then labels all public inputs and learns anew."""
        labels = gnmax(counts[:queries], sigma=self.noise(queries), generator=generator)
        first = least_squares(public[:queries], labels)
        return least_squares(public, first(public).argmax(1)), labels


def choosing(seed: int) -> torch.Generator:
    """The draws of the runs that settings are chosen on."""
    return seeded(1000 * (seed + 1) - 1)


@torch.no_grad()
def least_squares(x: Tensor, y: Tensor) -> nn.Module:
    r"""The linear model of coefficients of least squared error to one-hot labels, with $\lambda \|W\|^2$ added.

    $W = \frac{1}{\sqrt{D}} T^\top (R R^\top + \lambda 1)^{-1} R$, with the rows R normalized and divided by $\sqrt{D}$.
    """
    model = scattered_regression(tuple(x.shape[1:]))
    *normalize, layer = model
    rows = nn.Sequential(*normalize)(x).double() / math.sqrt(layer.in_features)
    targets = F.one_hot(y, layer.out_features).double() - 1 / layer.out_features
    system = rows @ rows.T + STRENGTH * torch.eye(len(rows), dtype=rows.dtype)
    layer.weight.copy_(torch.linalg.solve(system, targets).T @ rows / math.sqrt(layer.in_features))
    return model.requires_grad_(False).eval()


def scattered_jobs(name: str) -> tuple[ScatteredSgd | ScatteredPate, ...]:
    """DP-SGD at each published budget, and PATE."""
    return (*(ScatteredSgd(name, budget) for budget in BUDGETS), *(ScatteredPate(name, budget) for budget in QUERIES))
