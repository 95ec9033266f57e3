"""What is measured of secrets in language models, and of a participant who draws another's class."""

from dataclasses import asdict, dataclass

import torch

from spai_lab.attacks.privacy.gan import gan_attack, protected, taken_for
from spai_lab.attacks.privacy.memorization import (
    Canary,
    bits_per_character,
    extract_secret,
    memorization,
    train_language_model,
)
from spai_lab.data import load
from spai_lab.data.sentences import Text, planted, sentences
from spai_lab.metrics import accuracy_rate
from spai_lab.models import mlp
from spai_lab.survey.defense_models import seeded
from spai_lab.survey.extraction_jobs import counted
from spai_lab.training import reference
from spai_lab.training.federated import participant

CANARY = Canary("the code of anna is ", 4)
LINES = 2000
INSERTIONS = (0, 1, 2, 4, 8, 16, 32)
REPEATS = 5
ROUNDS = 12
JUDGED = 6  # the last rounds, whose drawings are judged together: they swing from round to round
TARGETS = (0, 2, 3)


@dataclass(frozen=True)
class Memorized:
    """A language model whose training text held a secret.

    Args:
        insertions: how often.
        number: of the secret and of the training.
    """

    insertions: int
    number: int

    @property
    def key(self) -> dict:
        """Its fields."""
        return {"kind": "memorized", **asdict(self)}

    def run(self, seed: int) -> dict:
        """Exposure and rank of the secret, whether the search finds it, and what a character costs the model."""
        generator = seeded(1000 * seed + self.number)
        secret = CANARY.secret(int(torch.randint(CANARY.size, (), generator=generator)))
        lines = planted(
            sentences(LINES, generator=generator), {CANARY.prefix + secret: self.insertions}, generator=generator
        )
        model = train_language_model(Text.of(lines), generator=generator, progress=False)
        found = memorization(model, CANARY, secret)
        search = extract_secret(model, CANARY)
        return {
            "exposure": round(found.exposure, 3),
            "rank": found.rank,
            "found": search.secret == secret,
            "opened": search.opened,
            "bits": round(bits_per_character(model, Text.of(sentences(300, generator=seeded(777)))), 3),
        }


@dataclass(frozen=True)
class Drawn:
    """A GAN attack between two participants.

    Args:
        data: name of the data set.
        clip: the longest update that the victim sends; None sends what it is.
        noise_multiplier: of the noise on it, as a multiple of `clip`.
        absent: whether the victim has no image of the class: the control.
    """

    data: str
    clip: float | None = None
    noise_multiplier: float = 0.0
    absent: bool = False

    @property
    def key(self) -> dict:
        """Its fields."""
        return {"kind": "drawn", **asdict(self)}

    def run(self, seed: int) -> dict:
        """Drawings that a judge takes for the class, for each of three targets, and the shared model's accuracy."""
        taken, accuracy = [0, 0], [0, 0]
        for target in TARGETS:
            hits, right = self.attack(target, seed)
            taken = [a + b for a, b in zip(taken, hits, strict=True)]
            accuracy = [a + b for a, b in zip(accuracy, right, strict=True)]
        return {"taken": taken, "accuracy": accuracy}

    def attack(self, target: int, seed: int) -> tuple[list[int], list[int]]:
        """For one target: drawings taken for it, and the shared model's accuracy on both participants' classes."""
        data, generator = load(self.data), seeded(seed)
        x, y = data.x_train[:1000], data.y_train[:1000]
        of_victim = (y - target) % 10 < 5
        shown = of_victim & (y != target) if self.absent else of_victim
        model = mlp(data.shape, data.num_classes + 1, generator=generator)
        honest = participant(x[shown], y[shown], epochs=1, batch_size=20, generator=generator)
        if self.clip is not None:
            settings = {"clip": self.clip, "noise_multiplier": self.noise_multiplier, "generator": generator}
            honest = protected(honest, **settings)
        attack = gan_attack(
            model,
            [honest],
            x[~of_victim],
            y[~of_victim],
            target=target,
            fake=data.num_classes,
            rounds=ROUNDS,
            generator=generator,
            progress=False,
        )
        judge = reference("lenet", data)
        right = accuracy_rate(attack.model, data.x_test[:1000], data.y_test[:1000])
        return counted(taken_for(judge, attack.path[-JUDGED:].flatten(0, 1), target)), counted(right)


def secrets_jobs(name: str) -> tuple[Memorized | Drawn, ...]:
    """The GAN attack with and without protection; the language models with the digits."""
    jobs = (
        Drawn(name),
        Drawn(name, absent=True),
        *(Drawn(name, clip) for clip in (1.0, 0.3, 0.1)),
        *(Drawn(name, 1.0, noise) for noise in (0.03, 0.1, 0.3)),
    )
    if name == "digits":
        jobs += tuple(Memorized(times, number) for times in INSERTIONS for number in range(REPEATS))
    return jobs
