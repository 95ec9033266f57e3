"""How a targeted attack is judged: random targets, victims trained from unseen seeds, clean accuracy before and after.

A victim is `(data, seed) -> model`. The two kinds of the literature stand here, and are reported apart: training from
scratch, and transfer, where a feature extractor from other data stays frozen and the last layer alone is trained.
"""

import math
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from spai_lab.attacks.poisoning.poisoned import Poisoned
from spai_lab.checks import check_callable, check_count, check_flag, check_number, describe
from spai_lab.data import Dataset
from spai_lab.metrics import Rate
from spai_lab.models import features
from spai_lab.threat import fresh_generator, logits_of
from spai_lab.training import Recipe, accuracy, train

Attack = Callable[[Tensor, int, torch.Generator], Poisoned]
Victim = Callable[[Dataset, int], nn.Module]


@dataclass(frozen=True, eq=False)
class Target:
    """One test image, and what a targeted attack wants of it.

    Args:
        x: the image, `(1, C, H, W)` in [0, 1].
        y: its class, which only the evaluation reads.
        wanted: the class it shall get, another one.
    """

    x: Tensor
    y: int
    wanted: int


@dataclass(frozen=True)
class TargetedOutcome:
    """What a targeted attack reached, over targets and seeds.

    Args:
        success: pairs of target and seed where the poisoned victim says the wanted class, of those where the victim
            trained from the same seed on clean data does not. The seeds of one target are not independent, so that the
            interval is somewhat too narrow.
        accuracy_before: mean accuracy of the clean victims on the test part, in [0, 1].
        accuracy_after: that of the poisoned victims.

    >>> outcome = TargetedOutcome(Rate(30, 60), accuracy_before=0.98, accuracy_after=0.975)
    >>> print(outcome)
    success 50.0 % (n = 60, 95 % interval 37.7 to 62.3); clean accuracy 98.00 % before, 97.50 % after
    """

    success: Rate
    accuracy_before: float
    accuracy_after: float

    @property
    def loss(self) -> float:
        """By how much clean accuracy fell, in [-1, 1]; 0.01 is one point."""
        return self.accuracy_before - self.accuracy_after

    def __str__(self) -> str:
        before, after = 100 * self.accuracy_before, 100 * self.accuracy_after
        return f"success {self.success}; clean accuracy {before:.2f} % before, {after:.2f} % after"


def random_targets(data: Dataset, count: int, *, generator: torch.Generator | None = None) -> tuple[Target, ...]:
    """Test images drawn without replacement, each with a wanted class drawn from those that it is not of.

    Args:
        data: with at least `count` test inputs.
        count: how many.
        generator: draws them; None draws a fresh one.
    Raises:
        ValueError: names the argument.

    >>> from spai_lab.data import load
    >>> targets = random_targets(load("digits"), 3, generator=torch.Generator().manual_seed(0))
    >>> [target.y != target.wanted for target in targets]
    [True, True, True]
    """
    check_count("count", count)
    check_number("count", count, low=1, high=len(data.x_test))
    generator = fresh_generator(generator, data.x_test.device)
    chosen = torch.randperm(len(data.x_test), generator=generator)[:count]
    y = data.y_test[chosen]
    wanted = (y + torch.randint(1, data.num_classes, (count,), generator=generator)) % data.num_classes
    images = data.x_test[chosen].split(1)
    return tuple(Target(*one) for one in zip(images, y.tolist(), wanted.tolist(), strict=True))


def disjoint(data: Dataset, count: int) -> tuple[Dataset, Dataset]:
    """Two data sets without a common training input: the first `count`, to pretrain on, and the rest, to poison.

    Args:
        data: whose training part is divided; both keep its validation and test parts.
        count: at least 1, and below the number of training inputs.
    Raises:
        ValueError: names the argument.

    >>> from spai_lab.data import load
    >>> [len(part.y_train) for part in disjoint(load("digits"), 500)]
    [500, 578]
    """
    check_count("count", count)
    check_number("count", count, low=1, high=len(data.y_train) - 1)
    return data.first(count), replace(data, x_train=data.x_train[count:], y_train=data.y_train[count:])


def from_scratch(data: Dataset, seed: int, *, recipe: Recipe) -> nn.Module:
    """A victim whose weights are all trained on the data; `partial` sets the recipe.

    Args:
        data: clean or poisoned.
        seed: as in `train`.
        recipe: how to train.
    Returns:
        the model, in evaluation mode.
    Raises:
        ValueError: names the argument.
    """
    return train(recipe, data, seed=seed, progress=False)[0]


def frozen_features(
    data: Dataset,
    seed: int,
    *,
    extractor: nn.Module,
    epochs: int = 60,
    batch_size: int = 128,
    learning_rate: float = 1e-2,
) -> nn.Module:
    """A victim that keeps another model's features, and trains a new last layer on the data.

    Args:
        data: clean or poisoned.
        seed: starts the generator of the layer's first weights and of shuffling.
        extractor: a model that ends in a linear layer, trained on other data; it does not change.
        epochs, batch_size, learning_rate: of Adam on the cross-entropy.
    Returns:
        the model, in evaluation mode.
    Raises:
        ValueError: names the argument.
    Reference: Shafahi et al. 2018, arXiv 1804.00792, section 3.1: Adam at a learning rate of 0.01 on the last layer,
        started at random.

    >>> from spai_lab.data import load
    >>> from spai_lab.training import reference
    >>> data = load("digits")
    >>> accuracy(frozen_features(data, 0, extractor=reference("lenet", "mnist")), data.x_test, data.y_test) > 0.95
    True
    """
    check_count("seed", seed, low=0)
    for name, value in (("epochs", epochs), ("batch_size", batch_size)):
        check_count(name, value)
    check_number("learning_rate", learning_rate, low=0, exclusive=True)
    generator = torch.Generator().manual_seed(seed)
    model = deepcopy(extractor).requires_grad_(False).eval()
    phi = features(model, data.x_train)
    last = [layer for layer in model.modules() if isinstance(layer, nn.Linear)][-1].requires_grad_()
    bound = 1 / math.sqrt(last.in_features)
    for weights in last.parameters():
        weights.detach().uniform_(-bound, bound, generator=generator)
    adam = torch.optim.Adam(last.parameters(), lr=learning_rate)
    for _ in range(epochs):
        for batch in torch.randperm(len(phi), generator=generator).split(batch_size):
            adam.zero_grad()
            F.cross_entropy(last(phi[batch]), data.y_train[batch]).backward()
            adam.step()
    last.zero_grad()
    return model


def targeted_outcome(
    attack: Attack,
    data: Dataset,
    targets: Sequence[Target],
    *,
    victim: Victim,
    seeds: Sequence[int],
    generator: torch.Generator | None = None,
    progress: bool = True,
) -> TargetedOutcome:
    """Attack each target, train a victim from each seed, and ask it for the target.

    Args:
        attack: `(x_target, wanted, generator) -> Poisoned`, which poisons `data`; it learns neither the target's
            class nor the seeds.
        data: clean; the test part gives the accuracy.
        targets: at least one, as from `random_targets`.
        victim: `(data, seed) -> model`, such as `partial(from_scratch, recipe=...)`.
        seeds: of the victims, at least one, none of which the attacker's surrogates had.
        generator: of the attack; None draws a fresh one.
        progress: show a bar.
    Returns:
        success, and clean accuracy before and after.
    Raises:
        ValueError: names the argument; all clean victims say the wanted class already.
    """
    for name, call in (("attack", attack), ("victim", victim)):
        check_callable(name, call)
    for name, some in (("targets", targets), ("seeds", seeds)):
        if not isinstance(some, Sequence) or not some:
            raise ValueError(f"{name} is {describe(some)}; accepted: a list of at least one")
    check_flag("progress", progress)
    generator = fresh_generator(generator, data.x_train.device)
    clean = {seed: victim(data, seed) for seed in seeds}
    hits, after = [], []
    for target in tqdm(targets, desc="targeted attack", unit="target", disable=not progress):
        poisoned = attack(target.x, target.wanted, generator).within(data)
        for seed in seeds:
            model = victim(poisoned, seed)
            after.append(accuracy(model, data.x_test, data.y_test))
            if not says_wanted(clean[seed], target):
                hits.append(says_wanted(model, target))
    if not hits:
        raise ValueError("targets already get the wanted class from every clean victim; accepted: one that does not")
    before = [accuracy(model, data.x_test, data.y_test) for model in clean.values()]
    return TargetedOutcome(Rate(sum(hits), len(hits)), sum(before) / len(before), sum(after) / len(after))


@torch.no_grad()
def says_wanted(model: nn.Module, target: Target) -> bool:
    """Whether the model takes the target for the wanted class."""
    label = torch.tensor([target.wanted], device=target.x.device)
    return bool(logits_of(model, target.x, label).argmax() == target.wanted)
