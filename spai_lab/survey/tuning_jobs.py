r"""What is measured of the settings of DP-SGD: accuracy and $\epsilon$ over clipping norm, noise and lot size.

A *lot* is the batch of a step, by its expected size. All trainings go through the records equally often, so a larger
lot means fewer steps. Each step moves the weights by at most $\eta C$ without noise, so one learning rate $\eta$ for
all clipping norms C would compare step lengths rather than clipping norms. Each setting therefore gets a learning rate
of its own: of a few step lengths $\eta C$, the one that did best on the validation part in two trials together. The
trainings that count have other seeds than the trials.

Nothing here reads a test label: settings are chosen on the validation part, and this is that part. The validation part
counts as public. Whoever tunes on private data has to pay for each look, and no $\epsilon$ here contains that.
"""

import math
from dataclasses import asdict, dataclass

from torch import nn

from spai_lab.data import load
from spai_lab.metrics import Rate, accuracy_rate
from spai_lab.privacy.dp_sgd import PrivateHistory, dp_sgd
from spai_lab.survey.defense_models import seeded
from spai_lab.survey.measure import counted
from spai_lab.survey.private_jobs import DELTA, network, stated

RECORDS = {"digits": 1_078, "mnist": 10_000}
EPOCHS = {"digits": 20, "mnist": 4}
CLIPS = (0.1, 0.3, 1.0, 3.0, 10.0)
NOISES = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)
LOTS = {"digits": (32, 128, 512, 1_078), "mnist": (64, 256, 1_024, 4_096)}
STEP_LENGTHS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)  # of a step without noise, at most: learning rate times C
TRIALS, TRAININGS = 2, 3


@dataclass(frozen=True)
class Tuned:
    r"""One setting of DP-SGD.

    Args:
        data: name of the data set.
        clip: C.
        noise_multiplier: $\sigma$; 0 clips alone, and promises nothing.
        lot: how many records a step draws on average, $q n$.
    """

    data: str
    clip: float
    noise_multiplier: float
    lot: int

    @property
    def key(self) -> dict:
        """Its fields."""
        return {"kind": "tuning", **asdict(self)}

    @property
    def sampling_rate(self) -> float:
        """q."""
        return self.lot / RECORDS[self.data]

    @property
    def steps(self) -> int:
        """How many steps there are in the epochs."""
        return round(EPOCHS[self.data] / self.sampling_rate)

    def train(self, step_length: float, seed: int) -> tuple[nn.Module, PrivateHistory]:
        """One private training of a small network, and what it spent."""
        data, generator = load(self.data), seeded(seed)
        model = network(data.num_classes, generator)
        history = dp_sgd(
            model,
            data.x_train[: RECORDS[self.data]],
            data.y_train[: RECORDS[self.data]],
            noise_multiplier=self.noise_multiplier,
            clip=self.clip,
            sampling_rate=self.sampling_rate,
            steps=self.steps,
            learning_rate=step_length / self.clip,
            delta_dp=DELTA,
            generator=generator,
            diagnose=True,
            progress=False,
        )
        return model.eval(), history

    def judge(self, model: nn.Module) -> Rate:
        """How many images of the validation part the model reads rightly."""
        data = load(self.data)
        return accuracy_rate(model, data.x_val, data.y_val)

    def run(self, seed: int) -> dict:
        """The step length that two trials of each find best, then several trainings with it."""
        trials = range(1000 * (seed + 1) - TRIALS, 1000 * (seed + 1))
        tried = [[self.judge(self.train(length, trial)[0]) for trial in trials] for length in STEP_LENGTHS]
        hits = [sum(rate.hits for rate in rates) for rates in tried]
        chosen = STEP_LENGTHS[hits.index(max(hits))]
        learned = [self.train(chosen, 1000 * seed + k) for k in range(TRAININGS)]
        guarantee = learned[0][1].guarantee
        return {
            "records": RECORDS[self.data],
            "epochs": EPOCHS[self.data],
            "steps": self.steps,
            **stated(guarantee),
            "epsilon": None if guarantee.epsilon == math.inf else guarantee.epsilon,
            "covers": list(guarantee.covers),
            "step_length": chosen,
            "tried": [[sum(part) for part in zip(*map(counted, rates), strict=True)] for rates in tried],
            "validation": [counted(self.judge(model)) for model, _ in learned],
            "clipped": [round(history.diagnostics.clipped_share, 4) for _, history in learned],
        }


def tuning_jobs(name: str) -> tuple[Tuned, ...]:
    """Every setting of the grid."""
    return tuple(Tuned(name, clip, noise, lot) for lot in LOTS[name] for noise in NOISES for clip in CLIPS)
