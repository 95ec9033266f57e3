"""A submitted attack against the defenses: it runs in its own process, its images are judged here."""

import hashlib
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import safetensors.torch
import torch
from torch import Tensor, nn

from spai_lab.arena import rules
from spai_lab.arena.findings import Finding, Fouled
from spai_lab.arena.keeper import Clock, Keeper, texts, unexpected
from spai_lab.arena.opponents import NETWORKS, RANDOM, opponent
from spai_lab.arena.processes import WAKING
from spai_lab.arena.scene import Scene, rate, read, stands
from spai_lab.arena.submission import Budget, Submission
from spai_lab.attacks.evasion import pgd, square, transfer
from spai_lab.checks import unsuspecting
from spai_lab.crypto.frames import Message
from spai_lab.data import load
from spai_lab.metrics import Rate
from spai_lab.query import Query
from spai_lab.survey.defense_models import Defended
from spai_lab.survey.quick_judging import reseeded
from spai_lab.threat import norms
from spai_lab.training import reference

ROUNDING = 1e-6
MOST_ASKED = 4096  # images in one question
STEPS, RANDOM_STEPS = 40, 8  # of the attack that a submitted one is compared with
LIKENESS, SURPRISES = 0.9, 3  # of printed digits to the labels; how many labels the submission cannot have guessed


@dataclass(frozen=True, eq=False)
class Row:
    """One defense under the submitted attack, or one attack on the submitted defense.

    Args:
        name: of the opponent.
        clean: share that is read rightly before.
        left: share that is read rightly after.
        ours: share that the arena's own attack of the same price leaves; None against a submitted defense.
        standing: which images are read rightly after, bool `(N,)`.
        seconds: it took.
    """

    name: str
    clean: Rate
    left: Rate
    ours: Rate | None
    standing: Tensor
    seconds: float


@dataclass(frozen=True, eq=False)
class Bout:
    """What came of a match before anything is said about it.

    Args:
        rows: what was measured, in order.
        found: what was noticed.
        output: what the submission printed, its beginning.
    """

    rows: tuple[Row, ...]
    found: tuple[Finding, ...]
    output: str


def secret_of(scene: Scene, purpose: str) -> int:
    """A seed for somebody who must not know the scene's own: from it the images could be drawn."""
    return int.from_bytes(hashlib.sha256(f"{scene.seed} {purpose}".encode()).digest()[:6], "big")


def attack_bout(submission: Submission, scene: Scene, budget: Budget, names: Sequence[str]) -> Iterator[Row | Bout]:
    """Let the attack loose on one defense after the other.

    Args:
        submission: the attack, called as `attack(model, x, y, eps=...)`.
        scene: the images; their labels stay here.
        budget: what it may spend on each defense.
        names: of the defenses.
    Yields:
        a row for each defense, and last the bout; the first fatal finding ends it.
    """
    rows: list[Row] = []
    found: list[Finding] = []
    given: list[Tensor] = []
    called = "model, x, y, eps=eps" if budget.access == "white-box" else "query, x, y, eps=eps"
    with Keeper(budget.memory, submission.name, called) as keeper:
        try:
            keeper.begin("attack", submission.text, submission.name)
            keeper.expect("ready", seconds=budget.seconds, doing="to define its function")
            for name in names:
                defended = opponent(name, scene.data)
                reseeded(defended, scene.seed)
                start = time.perf_counter()
                given.append(read(defended.model, scene.x)[0])
                x_adv = attacked(keeper, name, defended.model, given[-1], scene, budget)
                rows.append(row_of(name, defended, x_adv, scene, budget, time.perf_counter() - start))
                yield rows[-1]
        except Fouled as fouled:
            found.append(fouled.finding)
    yield Bout(tuple(rows), (*found, *afterwards(keeper, scene, given)), keeper.output)


def afterwards(keeper: Keeper, scene: Scene, given: Sequence[Tensor]) -> list[Finding]:
    """What is found when a match is over: labels in what was printed, and processes that were to go on."""
    found = []
    if leak := leaked(keeper.output, scene.y, given):
        found.append(rules.TOLD_LABELS.broken(percent=100 * leak))
    if keeper.process.escaped:
        found.append(rules.OUTLIVES.broken(count=keeper.process.escaped))
    return found


def attacked(keeper: Keeper, name: str, model: nn.Module, y: Tensor, scene: Scene, budget: Budget) -> Tensor:
    """The images that the attack makes of the scene's, accepted.

    The labels that it is given are the victim's own answers, which it could find out anyway.

    Raises:
        Fouled: it breaks a rule.
    """
    allowed = budget.gradients if budget.access == "white-box" else budget.queries
    secret = secret_of(scene, f"attack {name}")
    network, weights = NETWORKS.get(name, {}).get(scene.data, ""), b""
    if network and budget.access == "white-box":
        weights = safetensors.torch.save(model.state_dict())
    victim = name, scene.data, network, weights, load(scene.data).num_classes
    keeper.send("victim", *victim, budget.access, allowed, float(scene.eps), secret, scene.x, y)
    keeper.expect("begun", seconds=WAKING, doing="to load the defense")
    clock, left, doing = Clock(budget.seconds), budget.queries * len(scene.x), f"for {name}"
    while True:
        with clock:
            answer = keeper.receive(seconds=clock.left, allowed=clock.seconds, doing=doing)
            if answer.kind == "ask" and budget.access != "white-box":
                x = asked(answer)
                left -= len(x)
                if left < 0:
                    raise Fouled(rules.OVER_BUDGET.broken(what="queries", allowed=budget.queries))
                keeper.send("answer", revealed(model, x, budget.access))
                continue
        if answer.kind == "other":
            raise Fouled(rules.OTHER_KIND.broken(came=texts(answer, 1)[0], accepted=like(scene.x)))
        if answer.kind != "made" or len(answer.values) != 3:
            raise Fouled(unexpected(answer, "made"))
        if changed := texts(answer, 3)[2]:
            raise Fouled(rules.CHANGED_THE_MODEL.broken(weight=changed))
        x_adv = answer.values[0]
        return accepted(x_adv, scene)


def asked(question: Message) -> Tensor:
    """The images that a black-box attack shows; a question that holds none is no question."""
    x = question.values[0] if question.values else None
    fits = isinstance(x, Tensor) and x.dtype == torch.float32 and x.ndim == 4 and x.shape[1:] == (1, 28, 28)
    if not fits or len(x) > MOST_ASKED or not bool(((x >= 0) & (x <= 1)).all()):
        raise Fouled(rules.GARBLED.broken(message=f"a question that is not at most {MOST_ASKED:,} images in [0, 1]"))
    return x


@torch.no_grad()
def revealed(model: nn.Module, x: Tensor, access: str) -> Tensor:
    """What the arena says of these images: never more than the budget's access, in the form of logits."""
    logits = model(x)
    if access == "logits":
        return logits
    if access == "scores":
        return logits.log_softmax(1)
    # -1 and 1, since rows that sum to 1 look like probabilities, which a query refuses
    return 2.0 * torch.nn.functional.one_hot(logits.argmax(1), logits.shape[1]) - 1


def like(x: Tensor) -> str:
    """What an attack has to return, in words."""
    return f"a float32 tensor of shape {tuple(x.shape)}, like x"


def accepted(x_adv: object, scene: Scene) -> Tensor:
    """The images of an attack, if they obey the rules.

    Args:
        x_adv: whatever came.
        scene: the clean images and `eps`.
    Returns:
        `x_adv`, in [0, 1] and within `eps` (+1e-6) of the clean images.
    Raises:
        Fouled: says which rule is broken.
    """
    x = scene.x
    if not isinstance(x_adv, Tensor) or x_adv.shape != x.shape or x_adv.dtype != x.dtype:
        kind = type(x_adv).__name__
        came = f"a {str(x_adv.dtype)[6:]} tensor of shape {tuple(x_adv.shape)}" if kind == "Tensor" else f"a {kind}"
        raise Fouled(rules.OTHER_KIND.broken(came=came, accepted=like(x)))
    if not x_adv.isfinite().all():
        raise Fouled(rules.NOT_FINITE.broken())
    low, high = (end.item() for end in x_adv.aminmax())
    if low < -ROUNDING or high > 1 + ROUNDING:
        raise Fouled(rules.OUT_OF_RANGE.broken(low=low, high=high))
    far = norms(x_adv - x, scene.norm)
    if (outside := far > scene.eps + ROUNDING).any():
        count, norm = int(outside.sum()), "L-inf" if scene.norm == "linf" else "L2"
        images = f"{count} image{'s' * (count != 1)}"
        found = {"images": images, "furthest": float(far.max()), "eps": scene.eps, "norm": norm}
        raise Fouled(rules.OUTSIDE_THE_BALL.broken(**found))
    return x_adv.clamp(0, 1)


def row_of(name: str, defended: Defended, x_adv: Tensor, scene: Scene, budget: Budget, seconds: float) -> Row:
    """What the arena's own model, which the attack never touched, says of the images, with the labels kept here."""
    random = name in RANDOM
    standing = stands(defended.model, x_adv, scene.y, random=random)
    clean = stands(defended.model, scene.x, scene.y, random=random)
    ours = stands(
        defended.model, our_attack(defended, scene, budget, RANDOM_STEPS if random else STEPS), scene.y, random=random
    )
    return Row(name, rate(clean), rate(standing & clean), rate(ours & clean), standing & clean, seconds)


def our_attack(defended: Defended, scene: Scene, budget: Budget, steps: int) -> Tensor:
    """What it is compared with, at the same access: PGD by somebody who knows the defense, Square, or transfer."""
    ball = {"eps": scene.eps, "norm": scene.norm, "generator": scene.generator(1)}
    with unsuspecting():
        if budget.access == "white-box":
            return pgd(defended.view, scene.x, scene.y, steps=min(steps, budget.gradients), **ball)
        if budget.access == "labels":
            return transfer([reference("mlp", scene.data)], scene.x, scene.y, **ball)
        return square(Query(defended.model, budget.access), scene.x, scene.y, queries=budget.queries, **ball)


def leaked(output: str, y: Tensor, given: Sequence[Tensor]) -> float:
    """Whether a submission printed the true labels, which nobody told it: the share of them; 0 if it did not.

    Digits in the output that agree with the labels prove nothing where they agree with what it was given as well, so
    at least a few labels have to be there that it could not have from there.

    Args:
        output: what was printed.
        y: the true labels, `(N,)`.
        given: the labels that it was told, or has found, each `(N,)`.

    >>> y = torch.arange(10)
    >>> leaked(str(y.tolist()), y, [y.flip(0)]), leaked("epoch 1, loss 0.3", y, [y.flip(0)])
    (1.0, 0.0)
    """
    digits = torch.tensor([int(digit) for digit in re.findall(r"(?<![\d.])\d(?![\d.])", output)], dtype=torch.int64)
    n, best = len(y), 0.0
    for start in range(len(digits) - n + 1):
        same = digits[start : start + n] == y
        surprises = min((int((same & (told != y)).sum()) for told in given), default=n)
        if same.float().mean() >= LIKENESS and surprises >= min(SURPRISES, n):
            best = max(best, float(same.float().mean()))
    return best
