"""What is measured of model inversion and attribute inference, and of the window that they look through."""

from dataclasses import asdict, dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn

from spai_lab.attacks.privacy.attribute import attribute_inference, attribute_rate, confusion_matrix, imputation
from spai_lab.attacks.privacy.attribute import value_numbers as numbers
from spai_lab.attacks.privacy.inversion import identification_rate, model_inversion, process_dae
from spai_lab.data import Dataset, load
from spai_lab.inversion_victims import FACE_VICTIMS, diabetes, halved, tabular_mlp, train_face_victim, train_judge
from spai_lab.metrics import accuracy_rate
from spai_lab.query import Query
from spai_lab.survey.defense_models import seeded
from spai_lab.survey.measure import counted
from spai_lab.training import fit

ROUNDED = (None, 4, 3, 2, 1)
LOOKS = 400  # random directions in which the attacker looks around, in each step


def pictures(name: str) -> Dataset:
    """The faces at half their size, the digits as they are; 4,000 training images at most."""
    data = load(name)
    return halved(data) if name == "faces" else data.first(4000)


@lru_cache(maxsize=4)
def victim(name: str, kind: str, seed: int) -> nn.Module:
    """A victim, trained once."""
    epochs = 60 if name == "faces" else 20
    return train_face_victim(kind, pictures(name), epochs=epochs, generator=seeded(seed), progress=False)


@lru_cache(maxsize=2)
def judge(name: str) -> nn.Module:
    """Who says whether a drawing shows the target: trained on pictures that no victim saw."""
    return train_judge(pictures(name), epochs=150 if name == "faces" else 40, generator=seeded(99), progress=False)


@dataclass(frozen=True)
class Inversion:
    """Every class of a victim, drawn.

    Args:
        data: name of the data set.
        victim: one of `FACE_VICTIMS`.
        access: "white-box", "black-box", which measures the slope by queries, or "black-box, wide steps", which knows
            that confidences are rounded: it starts from gray, looks far, and climbs the logarithm.
        decimals: to which confidences are rounded; None reveals them all.
    """

    data: str
    victim: str
    access: str
    decimals: int | None = None

    @property
    def key(self) -> dict:
        """Its fields."""
        return {"kind": "inversion", **asdict(self)}

    def run(self, seed: int) -> dict:
        """The victim's test errors, the drawings that the judge recognizes, and how sure the victim is of them."""
        data, model, expert = pictures(self.data), victim(self.data, self.victim, seed), judge(self.data)
        targets = torch.arange(data.num_classes)
        x, confidence, queries = drawings(model, data, targets, self, seed)
        right = accuracy_rate(model, data.x_test, data.y_test)
        return {
            "errors": [right.trials - right.hits, right.trials],
            "judge": counted(accuracy_rate(expert, data.x_train, data.y_train)),
            "identified": counted(identification_rate(expert, x, targets)),
            "among five": counted(identification_rate(expert, x, targets, k=5)),
            "confidence": round(confidence.mean().item(), 3),
            "queries": queries,
        }


def drawings(
    model: nn.Module, data: Dataset, targets: Tensor, job: Inversion, seed: int
) -> tuple[Tensor, Tensor, int | None]:
    """What the attacker draws of each target, how sure the victim is of it, and queries for each."""
    settings = {"generator": seeded(seed), "progress": False}
    if job.access.startswith("black-box"):
        query = Query(model, "scores", decimals=job.decimals)
        looks = {"samples": LOOKS, "h": 0.1, "steps": 40, "step_size": 5.0}
        if job.access == "black-box, wide steps":
            gray = torch.full((1, *data.shape), 0.5)
            looks = {"samples": LOOKS, "h": 0.5, "steps": 150, "step_size": 1.0, "start": gray, "logarithm": True}
        found = model_inversion(query, targets, shape=data.shape, **looks, **settings)
        return found.x, found.confidence, query.total // len(targets)
    if job.victim == "dae":
        process = process_dae(model.encode, model.decode, window=5)
        code = (model.top[0].in_features,)
        steps = {"steps": 60, "step_size": 5.0, "logarithm": True}
        found = model_inversion(model.top, targets, shape=code, process=process, **steps, **settings)
        return model.decode(found.x).detach(), found.confidence, None
    found = model_inversion(model, targets, shape=data.shape, steps=300, step_size=2.0, **settings)
    return found.x, found.confidence, None


@dataclass(frozen=True)
class Attribute:
    """The sex of diabetes patients, guessed from a model of how far their disease has gone.

    Args:
        epochs: of the victim's training; the more, the more it overfits.
        level: "labels" or "scores".
    """

    epochs: int
    level: str

    @property
    def key(self) -> dict:
        """Its fields."""
        return {"kind": "attribute", **asdict(self)}

    def run(self, seed: int) -> dict:
        """Right guesses about members and others, and the victim's accuracy.

        From the commoner value, by imputation, from the model, and from the model with imputation as its prior.
        """
        return attribute_outcome(self.epochs, self.level, seed)


def attribute_outcome(epochs: int, level: str, seed: int) -> dict:
    """What `Attribute` measures, summed over five victims."""
    data, column, values = diabetes(), 1, torch.tensor([0.0, 1.0])
    groups = {"members": (data.x_train, data.y_train), "others": (data.x_test, data.y_test)}
    totals: dict[str, dict[str, list[int]]] = {}
    for number in range(5):
        generator = seeded(1000 * seed + number)
        model = tabular_mlp(len(data.features), data.num_classes, generator=generator)
        fit(model, *groups["members"], epochs=epochs, batch_size=16, generator=generator, progress=False)
        query = Query(model.eval(), level)
        confusion = None
        if level == "labels":
            confusion = confusion_matrix(query, data.x_val, data.y_val, classes=data.num_classes)
        share = (numbers(data.x_val, column, values) == 1).float().mean()
        prior = torch.stack([1 - share, share])
        for name, (x, y) in groups.items():
            truth = numbers(x, column, values)
            known = {"column": column, "values": values}
            imputed = imputation(data.x_val, x, **known, y_public=data.y_val, y=y)
            guesses = {
                "majority": prior.argmax().expand(len(truth)),
                "imputation": imputed.guess,
                "model": attribute_inference(query, x, y, **known, prior=prior, confusion=confusion).guess,
                "both": attribute_inference(
                    query, x, y, **known, prior=imputed.score.clamp_min(1e-6), confusion=confusion
                ).guess,
            }
            for attack, guess in guesses.items():
                add(totals.setdefault(attack, {}), name, counted(attribute_rate(guess, truth)))
            with torch.no_grad():
                right = int((model(x).argmax(1) == y).sum())
            add(totals.setdefault("accuracy", {}), name, [right, len(y)])
    return totals


def add(totals: dict[str, list[int]], name: str, counts: list[int]) -> None:
    """Add hits and trials to those of the same name."""
    totals[name] = [a + b for a, b in zip(totals.get(name, [0, 0]), counts, strict=True)]


def inversion_jobs(name: str) -> tuple[Inversion | Attribute, ...]:
    """Each victim with its weights and without, then softmax regression by rounding; with the digits, the patients."""
    jobs = (
        *(Inversion(name, kind, "white-box") for kind in FACE_VICTIMS),
        *(Inversion(name, kind, "black-box") for kind in FACE_VICTIMS[1:]),
        *(Inversion(name, "softmax", "black-box", decimals) for decimals in ROUNDED),
        *(Inversion(name, "softmax", "black-box, wide steps", decimals) for decimals in (None, 2, 1)),
    )
    if name == "digits":
        jobs += tuple(Attribute(epochs, level) for epochs in (5, 60, 200) for level in ("labels", "scores"))
    return jobs
