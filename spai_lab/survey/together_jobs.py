"""What no other family measures: noisy answers to one question, learning together, and what a guess alone is worth."""

import math
import time
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from spai_lab.data import load
from spai_lab.metrics import accuracy_rate
from spai_lab.models import mlp, softmax_regression
from spai_lab.privacy.mechanisms import (
    estimated_frequencies,
    exponential_mechanism,
    exponential_probabilities,
    gaussian_mechanism,
    gaussian_sigma,
    laplace_mechanism,
    randomized_response,
    truth_probability,
)
from spai_lab.privacy.selective_sgd import selective_guarantee, selective_sgd
from spai_lab.survey.block_jobs import CkksBlock, GarbledBlock, PaillierBlock, SharingBlock, TransferBlock
from spai_lab.survey.defense_models import seeded
from spai_lab.survey.extraction_jobs import regression, victim_and_pool
from spai_lab.survey.measure import Job, counted
from spai_lab.survey.private_jobs import DELTA
from spai_lab.training.federated import federated_averaging, participant, split_evenly, vector_of
from spai_lab.training.secure_federated import secure_federated_average, secure_federated_round

DIGIT = 7  # whose images are counted

# --- one question -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mechanisms:
    r"""How far private answers are off: the number of sevens among the training images, and the commonest digit.

    Neighbors differ in one replaced record, so that a count moves by 1.

    Args:
        data: name of the data set.
        epsilon: of each answer.
        answers: of each mechanism.
    """

    data: str
    epsilon: float
    answers: int

    @property
    def key(self) -> dict:
        """Its fields."""
        return {"kind": "mechanisms", **asdict(self)}

    def run(self, seed: int) -> dict:
        """Of each mechanism the mean absolute error, its deviation, and what a closed form says of the mean.

        Of the exponential mechanism how often it names the commonest digit, beside its probability.
        """
        y, generator = load(self.data).y_train, seeded(seed)
        counts, promise = y.bincount().double(), {"epsilon": self.epsilon, "generator": generator}
        value = counts[DIGIT].expand(self.answers).clone()
        sigma = gaussian_sigma(1.0, self.epsilon, DELTA)
        answers = {
            "laplace": laplace_mechanism(value, sensitivity=1.0, **promise),
            "gaussian": gaussian_mechanism(value, sensitivity=1.0, delta_dp=DELTA, **promise),
            "randomized response": torch.stack([self.asked_everybody(y, promise) for _ in range(self.answers // 10)]),
        }
        normal = math.sqrt(2 / math.pi)  # the mean of |z|
        expected = {"laplace": 1 / self.epsilon, "gaussian": normal * sigma}
        expected["randomized response"] = normal * self.deviation(y)
        named = [exponential_mechanism(counts, sensitivity=1.0, **promise) for _ in range(self.answers)]
        best = int(counts.argmax())
        return {
            "records": len(y),
            "delta_dp": DELTA,
            "count": int(counts[DIGIT]),
            "errors": {name: told(found - counts[DIGIT], expected[name]) for name, found in answers.items()},
            "commonest": [named.count(best), self.answers],
            "commonest expected": exponential_probabilities(counts, 1.0, self.epsilon)[best].item(),
        }

    def asked_everybody(self, y: Tensor, promise: dict) -> Tensor:
        """The count as estimated from everybody's own noisy label."""
        reports = randomized_response(y, 10, **promise)
        return len(y) * estimated_frequencies(reports, 10, self.epsilon)[DIGIT]

    def deviation(self, y: Tensor) -> float:
        """The standard deviation of that estimate: a sum of coins, divided by p - q."""
        p = truth_probability(10, self.epsilon)
        q, holders = (1 - p) / 9, int((y == DIGIT).sum())
        return math.sqrt(holders * p * (1 - p) + (len(y) - holders) * q * (1 - q)) / (p - q)


def told(off: Tensor, expected: float) -> dict:
    """Errors as a row keeps them."""
    off = off.abs().double()
    return {"mean": off.mean().item(), "deviation": off.std().item(), "answers": len(off), "expected": expected}


# --- learning together ------------------------------------------------------------------------------------------------

SHARING = {
    "everything": {"upload": 1.0},
    "the largest tenth": {"upload": 0.1},
    **{
        f"a noisy tenth, {each:g} each": {
            "upload": 0.1,
            "choice": "sparse vector",
            "bound": 0.01,
            "threshold": 1e-4,
            "epsilon_per_parameter": each,
        }
        for each in (1.0, 10.0)
    },
}


@dataclass(frozen=True)
class Selective:
    """Participants who share a part of their gradients, in turns.

    Reference: Shokri and Shmatikov 2015, "Privacy-preserving deep learning", CCS.

    Args:
        data: name of the data set.
        sharing: one of `SHARING`.
        participants: how many, with a hundred records each.
        turns: how often one of them takes part, drawn at random.
        trainings: each with a seed of its own.
    """

    data: str
    sharing: str
    participants: int = 10
    turns: int = 30
    trainings: int = 5

    @property
    def key(self) -> dict:
        """Its fields."""
        return {"kind": "selective", **asdict(self)}

    def run(self, seed: int) -> dict:
        """What the participant who took part most is promised, and the test accuracy of each training."""
        data, settings = load(self.data), SHARING[self.sharing]
        x, y = data.x_test[:1000], data.y_test[:1000]
        parts, most = [], 0
        for number in range(self.trainings):
            generator = seeded(1000 * seed + number)
            records = 100 * self.participants
            shards = split_evenly(
                data.x_train[:records], data.y_train[:records], self.participants, generator=generator
            )
            steps = {"epochs": 1, "batch_size": 10, "learning_rate": 0.05, "generator": generator}
            owners = [selective_sgd(*shard, **steps, **settings) for shard in shards]
            start = softmax_regression(data.shape, data.num_classes, generator=generator)
            turns = {"rounds": self.turns, "sample": 1 / self.participants}
            model, history = federated_averaging(start, owners, **turns, generator=generator, progress=False)
            parts.append(counted(accuracy_rate(model, x, y)))
            most = max(most, int(history.took_part.sum(0).max()))
        each = settings.get("epsilon_per_parameter")
        size = len(vector_of(start))
        promise = selective_guarantee(
            parameters=size, upload=settings["upload"], epsilon_per_parameter=each, rounds=most
        )
        return {
            "parameters": size,
            "took_part": most,
            "epsilon_each": each,
            "epsilon": None if each is None else promise.epsilon,
            "delta_dp": 0.0,
            "adjacency": promise.adjacency,
            "accuracy": parts,
        }


@dataclass(frozen=True)
class Federated:
    """Federated averaging whose server sees each update, and whose server sees none.

    Reference: McMahan et al. 2016, arXiv 1602.05629; Bonawitz et al. 2017, IACR 2017/281.

    Args:
        data: name of the data set.
        clients: who share the records.
        records: of all clients.
        rounds: of averaging.
        hidden: units of each of an MLP's two hidden layers.
    """

    data: str
    clients: int
    records: int
    rounds: int
    hidden: int = 64

    @property
    def key(self) -> dict:
        """Its fields."""
        return {"kind": "federated", **asdict(self)}

    def run(self, seed: int) -> dict:
        """Test accuracy both ways, how often they say the same, the largest difference, seconds, bytes of a client.

        Then one more average, during which a third of the clients leave.
        """
        data = load(self.data)
        shards = split_evenly(
            data.x_train[: self.records], data.y_train[: self.records], self.clients, generator=seeded(seed)
        )
        sizes = [len(labels) for _, labels in shards]
        start = mlp(data.shape, data.num_classes, hidden=self.hidden, generator=seeded(seed))
        plain, _ = federated_averaging(
            start, self.honest(shards, seed), rounds=self.rounds, weights=sizes, progress=False
        )
        unseen, clients, seconds = start, self.honest(shards, seed), []
        for number in range(self.rounds):
            before = time.perf_counter()
            unseen, average = secure_federated_round(unseen, clients, sizes, round=number)
            seconds.append(time.perf_counter() - before)
        with torch.no_grad():
            answers = [
                torch.cat([model(part).argmax(1) for part in data.x_test.split(1000)]) for model in (plain, unseen)
            ]
        updates = [send(unseen, self.rounds) for send in clients]
        gone = dict.fromkeys(range(self.clients // 3), "masked input")
        left = secure_federated_average(updates, sizes, round=self.rounds, dropouts=gone)
        kept = left.aggregate.included
        clear = sum(sizes[i] * updates[i].double() for i in kept) / sum(sizes[i] for i in kept)
        return {
            "parameters": len(updates[0]),
            "plain": counted(accuracy_rate(plain, data.x_test, data.y_test)),
            "secure": counted(accuracy_rate(unseen, data.x_test, data.y_test)),
            "agree": [int((answers[0] == answers[1]).sum()), len(data.y_test)],
            "largest_difference": float((vector_of(plain) - vector_of(unseen)).abs().max()),
            "round_seconds": round(sum(seconds) / len(seconds), 3),
            "client_bytes": max(average.aggregate.bytes_up),
            "update_bytes": 4 * len(updates[0]),
            "left": [len(gone), self.clients],
            "difference after they left": float((left.update.double() - clear).abs().max()),
        }

    def honest(self, shards: list[tuple[Tensor, Tensor]], seed: int) -> list:
        """Clients whose batches are drawn alike each time they are made."""
        settings = {"epochs": 2, "learning_rate": 0.1}
        return [participant(*shard, **settings, generator=seeded(1000 * seed + k)) for k, shard in enumerate(shards)]


# --- without a question -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Guessed:
    """How often who never asked a model names its class: by saying its commonest answer, whatever the image.

    Args:
        data: name of the data set.
    """

    data: str

    @property
    def key(self) -> dict:
        """Its field."""
        return {"kind": "guessed", **asdict(self)}

    def run(self, seed: int) -> dict:
        """Of the regression and of the LeNet that extraction copies, on the images on which copies are judged."""
        data = load(self.data)
        x, _ = data.sample(1000, seed=seed)
        return {
            "regression": commonest(regression(data, seed), data.x_test[:1000]),
            "lenet": commonest(victim_and_pool(self.data)[0], x),
        }


@torch.no_grad()
def commonest(model: nn.Module, x: Tensor) -> list[int]:
    """How many images get the commonest answer."""
    return [int(model(x).argmax(1).bincount().max()), len(x)]


def block_jobs(name: str) -> tuple[Job, ...]:
    """Noisy answers, learning together, guesses; with the digits the building blocks of cryptography too."""
    rounds = {"digits": Federated(name, 10, 1_078, 5), "mnist": Federated(name, 20, 10_000, 5)}
    jobs = (Mechanisms(name, 1.0, 10_000), *(Selective(name, way) for way in SHARING), rounds[name], Guessed(name))
    if name == "digits":
        jobs += (
            PaillierBlock(2048, 50),
            CkksBlock(8192, 4, 20),
            SharingBlock(100_000),
            TransferBlock(512, 100_000),
            GarbledBlock(32, 2_000),
        )
    return jobs
