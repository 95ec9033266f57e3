r"""PATE: teachers that never meet vote on public inputs, the votes get noise, and a student learns from the winners.

Each record is in the part of one teacher alone, so that it moves one vote at most, whatever the teachers are. The votes
and their noise are in `pate_votes`, what they spend in `pate_bounds`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from spai_lab.attacks.privacy.shadows import Shadows, train_shadows
from spai_lab.checks import check_choice, check_count, check_images, check_labels, check_number, describe
from spai_lab.data.dataset import Dataset
from spai_lab.privacy.guarantee import Guarantee, labeled
from spai_lab.privacy.pate_bounds import gnmax_guarantee, lnmax_guarantee
from spai_lab.privacy.pate_votes import gnmax, lnmax, votes
from spai_lab.privacy.secure import check_source
from spai_lab.threat import fresh_generator
from spai_lab.training.loop import fit

AGGREGATORS = ("gnmax", "lnmax")
Build = Callable[[torch.Generator], nn.Module]


@dataclass(frozen=True, eq=False, repr=False)
class Taught:
    """A student, what it was taught, and what that tells of the teachers' data.

    Args:
        student: the trained model; of the private data it saw nothing but `labels`.
        x: the public inputs that were asked about, `(N, C, H, W)`.
        labels: the noisy answers, `(N,)`.
        guarantee: of the labels, so of the student and of whatever else is made of them.
        counts: the votes without noise, `(N, K)`: private, never to be published.
        seeded: whether the run had a generator: then it is a demonstration, not private.
    """

    student: nn.Module
    x: Tensor
    labels: Tensor
    guarantee: Guarantee
    counts: Tensor
    seeded: bool = False

    def __repr__(self) -> str:
        teachers = int(self.counts[0].sum())
        promise = labeled(self.guarantee, self.seeded)
        return f"Taught: a student of {len(self.labels)} labels by {teachers} teachers; {promise}"


def pate(
    data: Dataset,
    x_public: Tensor,
    build: Build,
    *,
    teachers: int,
    noise: float,
    delta_dp: float,
    aggregator: str = "gnmax",
    queries: int | None = None,
    epochs: int = 20,
    student_epochs: int = 100,
    student_build: Build | None = None,
    secure: bool = False,
    generator: torch.Generator | None = None,
    progress: bool = True,
) -> Taught:
    r"""Train teachers on disjoint private parts, and a student on public inputs with the labels they vote for.

    $M(x) = \arg\max_j \{n_j(x) + Z_j\}$, where $n_j$ counts the teachers that say j; each answer spends a part of
    $\epsilon$, each look at the student none.

    Args:
        data: its training part is private; its test part is what the student will be judged on.
        x_public: inputs without labels, `(N, C, H, W)` in [0, 1], N at least 1; none may be in `data`. `public_pool`
            takes some from the test part.
        build: from a generator to an untrained network, as `train_shadows` wants it.
        teachers: how many, at least 1; the training part is cut into as many equal parts, what is left is not used.
        noise: in votes, above 0: the standard deviation $\sigma$ of "gnmax", the scale $1 / \gamma$ of "lnmax".
        delta_dp: $\delta$, above 0, at most 1.
        aggregator: "gnmax" or "lnmax".
        queries: how many of the public inputs are asked about, the first ones, at most N; None asks about all. With
            fewer, the student trains itself: it learns from the answers, labels all the inputs, and a new one learns
            from those labels.
        epochs: of each teacher.
        student_epochs: of each student.
        student_build: of the student; None takes `build`.
        secure: draw the noise of "gnmax" from the cryptographic source, on a grid; takes no generator.
        generator: seeds everything, which makes the run a demonstration, not private; None draws a fresh one.
        progress: show bars.
    Returns:
        the student, its labels, their guarantee, which holds for any votes, and the private votes.
    Raises:
        ValueError: names the argument.
    Reference: Papernot 2016, arXiv 1610.05755, section 2; Papernot 2018, arXiv 1802.08908, section 4.
    Survey: differential privacy, label level.
    Simplified: the student learns from inputs without answers by training itself; in the papers by a semi-supervised
        GAN.

    >>> from spai_lab.data import load
    >>> from spai_lab.models import softmax_regression
    >>> build = lambda generator: softmax_regression(generator=generator)
    >>> data, x_public = public_pool(load("digits"), 100)
    >>> pate(data, x_public, build, teachers=20, noise=20.0, delta_dp=1e-3, epochs=2, student_epochs=2, progress=False)
    Taught: a student of 100 labels by 20 teachers; epsilon 2.33 at delta 0.001, one record replaced;
    covers the noisy labels, the student
    """
    check_public(data, x_public)
    check_choice("aggregator", aggregator, AGGREGATORS)
    check_number("noise", noise, low=0, exclusive=True)
    check_number("delta_dp", delta_dp, low=0, high=1, exclusive=True)
    check_count("student_epochs", student_epochs)
    if queries is not None:
        check_count("queries", queries)
        check_number("queries", queries, low=1, high=len(x_public))
    check_source(secure, generator, data.x_train.device)
    if secure and aggregator != "gnmax":
        raise ValueError(f"secure is True with {aggregator!r}; accepted: with 'gnmax', whose curve holds on a grid")
    drawn = fresh_generator(generator, data.x_train.device)
    ensemble = train_teachers(
        data.x_train, data.y_train, teachers, build, epochs=epochs, generator=drawn, progress=progress
    )
    x_asked = x_public[:queries]
    counts = votes(ensemble, x_asked)
    if aggregator == "gnmax":
        labels = gnmax(counts, sigma=noise, secure=secure, generator=None if secure else drawn)
        guarantee = gnmax_guarantee(counts, sigma=noise, delta_dp=delta_dp)
    else:
        labels = lnmax(counts, scale=noise, generator=drawn)
        guarantee = lnmax_guarantee(counts, scale=noise, delta_dp=delta_dp)
    settings = {"epochs": student_epochs, "batch_size": 20, "learning_rate": 5e-3}
    learn = partial(taught_by, student_build or build, **settings, generator=drawn, progress=progress)
    student = learn(x_asked, labels)
    if len(x_asked) < len(x_public):
        with torch.no_grad():
            own = student(x_public).argmax(1)
        student = learn(x_public, own)
    covers = (*guarantee.covers, "the student")
    return Taught(student, x_asked, labels, replace(guarantee, covers=covers), counts, seeded=generator is not None)


def taught_by(build: Build, x: Tensor, labels: Tensor, *, generator: torch.Generator, **settings: object) -> nn.Module:
    """A new student of these inputs and labels, in evaluation mode."""
    student = build(generator)
    fit(student, x, labels, **settings, generator=generator)
    return student.eval()


def public_pool(data: Dataset, count: int, *, generator: torch.Generator | None = None) -> tuple[Dataset, Tensor]:
    """Take inputs out of the test part, to be public and without labels; what is left judges the student.

    Args:
        data: with a test part that may be split.
        count: how many inputs become public, at least 1, fewer than there are.
        generator: draws them; None draws a fresh one.
    Returns:
        the data with the rest as its test part, and the public inputs `(count, C, H, W)`.
    Raises:
        ValueError: names the argument.
    Reference: Papernot 2016, arXiv 1610.05755, section 4: of the 10,000 test inputs, 9,000 public and 1,000 to judge.

    >>> from spai_lab.data import load
    >>> data, x_public = public_pool(load("digits"), 439)
    >>> data, len(x_public)
    (Dataset digits: 1078 train, 180 validation, 100 test; shape (1, 28, 28); 10 classes, 439)
    """
    check_count("count", count)
    check_number("count", count, low=1, high=len(data.x_test) - 1)
    generator = fresh_generator(generator, data.x_test.device)
    order = torch.randperm(len(data.x_test), generator=generator, device=data.x_test.device)
    rest = order[count:]
    return replace(data, x_test=data.x_test[rest], y_test=data.y_test[rest]), data.x_test[order[:count]]


def train_teachers(
    x: Tensor,
    y: Tensor,
    count: int,
    build: Build,
    *,
    epochs: int = 20,
    batch_size: int = 20,
    learning_rate: float = 0.01,
    generator: torch.Generator | None = None,
    progress: bool = True,
) -> Shadows:
    """Teachers that each saw a part of the private data of its own, all trained at once.

    Args:
        x: private inputs, float `(N, C, H, W)` in [0, 1].
        y: their labels `(N,)`, int64.
        count: how many teachers, at least 1, at most N; the N modulo `count` inputs that are left are not used.
        build: from a generator to an untrained network, as `train_shadows` wants it.
        epochs, batch_size, learning_rate: of each teacher.
        generator: cuts the data, draws weights and batches, never looks at the data; None draws a fresh one.
        progress: show a bar.
    Returns:
        the teachers; no input is in two parts.
    Raises:
        ValueError: names the argument.
    Reference: Papernot 2016, arXiv 1610.05755, section 2.1.

    >>> from spai_lab.models import softmax_regression
    >>> x, y = torch.rand(9, 1, 2, 2), torch.arange(9) % 2
    >>> build = lambda generator: softmax_regression((1, 2, 2), 2, generator=generator)
    >>> train_teachers(x, y, 4, build, progress=False).inside.sum(0).max()
    tensor(1)
    """
    check_images(x)
    check_labels(y, x)
    check_count("count", count)
    if count > len(x):
        raise ValueError(f"count is {count}; accepted: at most the {len(x)} inputs, one for each teacher")
    generator = fresh_generator(generator, x.device)
    each = len(x) // count
    parts = torch.randperm(len(x), generator=generator, device=x.device)[: count * each].view(count, each)
    inside = torch.zeros(count, len(x), dtype=torch.bool, device=x.device).scatter(1, parts, True)
    settings = {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate}
    return train_shadows(x, y, inside, build, **settings, generator=generator, progress=progress)


def check_public(data: Dataset, x_public: Tensor) -> None:
    """Raise `ValueError` unless the public inputs are like those of the data, and none is in one of its parts."""
    if not isinstance(data, Dataset):
        raise ValueError(f"data is {describe(data)}; accepted: a Dataset")
    check_images(x_public, "x_public")
    if len(x_public) == 0 or x_public.shape[1:] != data.shape:
        raise ValueError(f"x_public is {describe(x_public)}; accepted: {('N', *data.shape)}, N at least 1")
    public = set(fingerprints(x_public))
    for part, role in (("x_test", "judges the student"), ("x_val", "is for choices"), ("x_train", "is private")):
        shared = sum(mark in public for mark in fingerprints(getattr(data, part)))
        if shared:
            raise ValueError(f"x_public has {shared} inputs of {part}, which {role}; accepted: none (see public_pool)")


def fingerprints(x: Tensor) -> list[int]:
    """A hash of each input's pixels."""
    return [hash(row.tobytes()) for row in x.cpu().numpy()]
