"""Audits of DP-SGD, of right code and of code with a planted bug, against what the accountant claims."""

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from spai_lab.data import load
from spai_lab.models import softmax_regression
from spai_lab.privacy.accounting import dp_sgd_guarantee, noise_for
from spai_lab.privacy.canaries import gradient_canary, input_canary
from spai_lab.privacy.dp_audit import ANY, GAUSSIAN, Run, canary_scores, lower_bound
from spai_lab.privacy.dp_sgd import dp_sgd, private_gradient
from spai_lab.survey.defense_models import seeded
from spai_lab.survey.private_jobs import CLIP, DELTA, on_ball, stated

CLAIMS = (1.0, 2.0, 4.0, 8.0)
CONFIDENCE = 0.999
OTHERS = 20  # examples beside the canary


def noise_divided_twice(gradients: dict[str, Tensor], *, noise_multiplier: float, expected_batch: float, **settings):
    """A bug: the noise is scaled for the mean, then divided by the batch size together with the sum."""
    scaled = noise_multiplier / expected_batch
    return private_gradient(gradients, noise_multiplier=scaled, expected_batch=expected_batch, **settings)


def clipped_after_the_mean(gradients: dict[str, Tensor], *, noise_multiplier: float, expected_batch: float, **settings):
    """A bug: the mean is clipped, which bounds what all do together, and nothing of what each one does."""
    mean = {name: part.sum(0, keepdim=True) / expected_batch for name, part in gradients.items()}
    return private_gradient(mean, noise_multiplier=noise_multiplier / expected_batch, expected_batch=1.0, **settings)


def the_same_batch(n: int, sampling_rate: float, steps: int, generator: torch.Generator) -> Iterator[Tensor]:
    """A bug: a sampler that starts anew at each step draws the same records; the accountant counts on new coins."""
    batch = torch.arange(n)[-math.ceil(sampling_rate * n) :]
    return (batch for _ in range(steps))


@dataclass(frozen=True)
class Code:
    """What is audited.

    Args:
        sampling_rate, steps: of the training.
        canary: "gradient" or "image".
        planted: what is wrong with it, as `gradient_canary` takes it; empty if nothing is.
        runs: of the mechanism.
        more_runs: at claims that take more to prove much of, or to refute.
    """

    sampling_rate: float
    steps: int
    canary: str = "gradient"
    planted: dict[str, Callable] = field(default_factory=dict, repr=False)
    runs: int = 4_000
    more_runs: dict[float, int] = field(default_factory=dict, repr=False)


CODES = {
    "all records at each step": Code(1.0, 1, runs=40_000, more_runs={1.0: 400_000, 2.0: 120_000}),
    "Poisson samples": Code(0.1, 20),
    "only the last weights are seen": Code(1.0, 5, "image", runs=2_000),
    "noise for the wrong batch size": Code(1.0, 1, planted={"gradient": noise_divided_twice}, more_runs={8.0: 120_000}),
    "clipping after the mean": Code(1.0, 1, planted={"gradient": clipped_after_the_mean}, more_runs={8.0: 120_000}),
    "the same batch at each step": Code(0.1, 20, planted={"batches": the_same_batch}),
}


@dataclass(frozen=True)
class Audited:
    """An audit of DP-SGD, as it should be or with a bug, against what its accountant claims.

    Args:
        data: name of the data set.
        code: one of `CODES`.
        claimed: the epsilon that the noise was made for, one record added or removed.
    """

    data: str
    code: str
    claimed: float

    @property
    def key(self) -> dict:
        """Its fields."""
        return {"kind": "audit", **asdict(self)}

    def run(self, seed: int) -> dict:
        """The bounds that the same runs prove, and the errors that they rest on."""
        code = CODES[self.code]
        how = {"sampling_rate": code.sampling_rate, "steps": code.steps}
        sigma = noise_for(epsilon=self.claimed, delta_dp=DELTA, **how)
        claim = dp_sgd_guarantee(**how, noise_multiplier=sigma, delta_dp=DELTA)
        mechanism = MECHANISMS[code.canary](self.data, code, sigma)
        runs = code.more_runs.get(self.claimed, code.runs)
        scores = canary_scores(mechanism, runs=runs, generator=seeded(seed), progress=False)
        is_gaussian = code.canary == "gradient" and code.sampling_rate == 1 and not code.planted
        shapes = (ANY, GAUSSIAN) if is_gaussian else (ANY,)
        bounds = {shape: lower_bound(scores, delta_dp=DELTA, confidence=CONFIDENCE, tradeoff=shape) for shape in shapes}
        return {
            **stated(claim),
            "noise_multiplier": round(sigma, 4),
            "canary": code.canary,
            "planted": bool(code.planted),
            "runs": runs,
            "confidence": CONFIDENCE,
            "bounds": {shape: round(bound.epsilon_low, 4) for shape, bound in bounds.items()},
            "refuted": any(bound.exceeds(claim) for bound in bounds.values()),
            "errors": {
                shape: {
                    "false_positives": [bound.false_positives, bound.counted],
                    "false_negatives": [bound.false_negatives, bound.counted],
                }
                for shape, bound in bounds.items()
            },
        }


def with_gradient(name: str, code: Code, sigma: float) -> Run:
    """The adversary puts in a gradient and sees every noisy one."""
    x, y, model = few(name)
    how = {"sampling_rate": code.sampling_rate, "steps": code.steps, **code.planted}
    return gradient_canary(model, x, y, noise_multiplier=sigma, clip=CLIP, **how)


def with_image(name: str, code: Code, sigma: float) -> Run:
    """The adversary puts in a blank image with a label and sees the last weights."""
    x, y, model = few(name)
    how = {"sampling_rate": code.sampling_rate, "steps": code.steps, "learning_rate": 0.5, "delta_dp": DELTA}
    train = partial(dp_sgd, noise_multiplier=sigma, clip=CLIP, **how, progress=False)
    return input_canary(model, x, y, torch.zeros_like(x[:1]), torch.zeros_like(y[:1]), train)


MECHANISMS = {"gradient": with_gradient, "image": with_image}


def few(name: str) -> tuple[Tensor, Tensor, nn.Module]:
    """A few training rows, their labels, and the model that is trained."""
    data = load(name).first(OTHERS)
    x = on_ball(data.x_train)
    return x, data.y_train, softmax_regression(tuple(x.shape[1:]), data.num_classes, generator=seeded())


def audit_jobs(name: str) -> tuple[Audited, ...]:
    """Every code at every claim."""
    return tuple(Audited(name, code, claimed) for code in CODES for claimed in CLAIMS)
