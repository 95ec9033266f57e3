"""What is measured of secrets in language models, and of a participant who draws another's class."""

from dataclasses import asdict, dataclass

import torch

from spai_lab.attacks.privacy.gan import gan_attack, likeness, protected, taken_for
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
from spai_lab.training import reference
from spai_lab.training.federated import participant

CANARY = Canary("the code of anna is ", 4)
LINES = 2000
INSERTIONS = (0, 1, 2, 4, 8, 16, 32)
REPEATS = 5
ROUNDS = 12
JUDGED = 6  # the last rounds, whose drawings are judged together: they swing from round to round
TARGETS = (0, 2, 3)
TRAININGS = 3  # of each


def secret_text(insertions: int, generator: torch.Generator) -> tuple[str, Text]:
    """A secret drawn at random, and sentences among which it stands so many times."""
    secret = CANARY.secret(int(torch.randint(CANARY.size, (), generator=generator)))
    lines = planted(sentences(LINES, generator=generator), {CANARY.prefix + secret: insertions}, generator=generator)
    return secret, Text.of(lines)


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
        secret, text = secret_text(self.insertions, generator)
        model = train_language_model(text, generator=generator, progress=False)
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
    """A GAN attack between two participants, for three classes and three trainings each.

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
        """Of each training the share of drawings that a judge takes for the class, their likeness, and the accuracy."""
        runs = [self.attack(target, 100 * seed + number) for target in TARGETS for number in range(TRAININGS)]
        return {name: [round(run[name], 3) for run in runs] for name in ("taken", "likeness", "accuracy")}

    def attack(self, target: int, seed: int) -> dict[str, float]:
        """One training: what a judge says of the last rounds' drawings, how like the class they are, the accuracy."""
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
        drawings = attack.path[-JUDGED:].flatten(0, 1)
        return {
            "taken": taken_for(reference("lenet", data), drawings, target).value,
            "likeness": likeness(drawings, x, y)[target].item(),
            "accuracy": accuracy_rate(attack.model, data.x_test[:1000], data.y_test[:1000]).value,
        }


def secrets_jobs(name: str) -> tuple[Memorized | Drawn, ...]:
    """The GAN attack with and without protection; the language models with the digits."""
    protections = (*((clip, 0.0) for clip in (None, 1.0, 0.3, 0.1)), *((1.0, noise) for noise in (0.03, 0.1, 0.3)))
    jobs = tuple(Drawn(name, *protection, absent) for absent in (False, True) for protection in protections)
    if name == "digits":
        jobs += tuple(Memorized(times, number) for times in INSERTIONS for number in range(REPEATS))
    return jobs
