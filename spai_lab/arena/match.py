"""A submitted defense against the attacks: it answers from its own process, the attacks run here."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import safetensors.torch
import torch
from torch import Tensor, nn

from spai_lab.arena import rules
from spai_lab.arena.duel import Bout, Row, afterwards, secret_of
from spai_lab.arena.findings import Finding, Fouled
from spai_lab.arena.keeper import Keeper, texts
from spai_lab.arena.processes import WAKING
from spai_lab.arena.remote import Proxy
from spai_lab.arena.scene import BATCH, DRAWS, Scene, lenet_of, rate, read, stands
from spai_lab.arena.submission import Budget, Submission
from spai_lab.attacks.evasion import bpda, eot, fgsm, pgd, square, transfer
from spai_lab.checks import unsuspecting
from spai_lab.data import load
from spai_lab.query import Query
from spai_lab.survey.defense_attacks import margin_gradient
from spai_lab.threat import input_gradient
from spai_lab.training import reference

TRAINING = 4000  # images that a defense learns from, at most
STEPS, SAMPLES, RANDOM_STEPS, QUERIES = 40, 8, 15, 500
CLOSE = 1e-3  # of two logits that should be the same, against their size
ALONE = 8  # images that are also shown by themselves
TINY, UPHILL = 0.01, 0.6  # a step along the gradient; on how many images it has to raise the loss
FEW = 0.25  # of the images: how many a randomized model may read otherwise by chance
BY_A_COPY = "from a copy of it that was asked nothing else"
BLIND = ("transfer", "Square", "stand-in")


@dataclass(frozen=True, eq=False)
class Look:
    """What is known of a model before it is attacked.

    Args:
        model: it, or its proxy.
        says: what it reads in the clean images; attacks start from that, so that no label travels.
        random: whether two calls differ.
        hidden: whether its gradient is zero, or points nowhere.
    """

    model: nn.Module
    says: Tensor
    random: bool
    hidden: bool


Attack = Callable[[Look, Scene], Tensor]


# --- the attacks ------------------------------------------------------------------------------------------------------


def climbing(attack: Callable[..., Tensor], **settings: object) -> Attack:
    """An attack on the model's own gradient."""

    def run(look: Look, scene: Scene) -> Tensor:
        ball = {"eps": scene.eps, "norm": scene.norm, "generator": scene.generator(2)}
        return attack(look.model, scene.x, look.says, **ball, **settings)

    return run


def averaging(look: Look, scene: Scene) -> Tensor:
    """PGD on the mean of several draws."""
    model = eot(look.model, SAMPLES, generator=scene.generator(3))
    return climbing(pgd, steps=RANDOM_STEPS)(replace(look, model=model), scene)


def standing_in(look: Look, scene: Scene) -> Tensor:
    """PGD forward through the model, backward through the network that it was built on."""
    return climbing(pgd, steps=STEPS)(replace(look, model=bpda(look.model, lenet_of(scene.data))), scene)


def transferred(look: Look, scene: Scene) -> Tensor:
    """Made on two other networks."""
    surrogates = [reference(name, scene.data) for name in ("mlp", "lenet")]
    return transfer(surrogates, scene.x, look.says, eps=scene.eps, norm=scene.norm, generator=scene.generator(4))


def asking(look: Look, scene: Scene) -> Tensor:
    """Square, which sees logits alone."""
    query = Query(look.model, "logits")
    settings = {"eps": scene.eps, "norm": scene.norm, "queries": QUERIES, "generator": scene.generator(5)}
    return square(query, scene.x, look.says, **settings)


def attacks_on(look: Look) -> Mapping[str, Attack]:
    """All attacks that apply, in the order in which they run."""
    found: dict[str, Attack] = {
        "FGSM": climbing(fgsm),
        "PGD": climbing(pgd, steps=STEPS),
        "PGD on the margin": climbing(pgd, steps=STEPS, gradient=margin_gradient),
        "transfer": transferred,
        "Square": asking,
    }
    if look.random:
        found["EOT"] = averaging
    if look.hidden:
        found["stand-in"] = standing_in
    return found


# --- what is looked at beside -----------------------------------------------------------------------------------------


def look_at(model: nn.Module, scene: Scene) -> tuple[Look, list[Finding]]:
    """Look at a model before it is attacked.

    Returns:
        what was seen, and remarks.
    Raises:
        Fouled: it cheats, as far as this can be seen now.
    """
    x, found = scene.x, []
    with torch.no_grad():
        first, second = model(x), model(x)
    random = not alike(first, second).all()
    says = read(model, x, draws=DRAWS).mode(0).values if random else first.argmax(1)
    if random:
        found.append(rules.RANDOMIZED.broken(draws=DRAWS))
    if len(says.unique()) == 1 and len(scene.y.unique()) > 1:
        raise Fouled(rules.CONSTANT.broken())
    check_faces(model, x, first, says, random)
    check_companions(model, x, first, says, random)
    if scene.public is not None:
        known = rate(stands(model, scene.public, scene.y, random=random))
        new = rate(stands(model, x, scene.y, random=random))
        if known.interval[0] > new.interval[1]:
            raise Fouled(rules.RECOGNIZES.broken(known=known, new=new))
    remark = slope_of(model, x, says, random)
    found += [remark] if remark else []
    return Look(model, says, random, remark is not None), found


def alike(one: Tensor, other: Tensor) -> Tensor:
    """Which images have the same logits in two answers, bool `(N,)`."""
    size = one.abs().amax(1).clamp_min(1)
    return (one - other).abs().amax(1) <= CLOSE * size


def check_faces(model: nn.Module, x: Tensor, logits: Tensor, says: Tensor, random: bool) -> None:
    """Raise `Fouled` where an image is read otherwise as soon as its gradient may be asked for."""
    watched = x.clone().requires_grad_()
    if random:
        drawn = torch.stack([model(watched).detach().argmax(1) for _ in range(DRAWS)])
        count, allowed = int((drawn.mode(0).values != says).sum()), FEW * len(x)
    else:
        count, allowed = int((~alike(model(watched).detach(), logits)).sum()), 0
    if count > allowed:
        raise Fouled(rules.TWO_FACES.broken(count=count, total=len(x)))


@torch.no_grad()
def check_companions(model: nn.Module, x: Tensor, logits: Tensor, says: Tensor, random: bool) -> None:
    """Raise `Fouled` where an image's answer depends on the images beside it."""
    order = torch.arange(len(x)).flip(0)
    if random:
        other = read(model, x[order], draws=DRAWS).mode(0).values[order]
        count, total = int((other != says).sum()), len(x)
        if count > FEW * total:
            raise Fouled(rules.DEPENDS_ON_THE_BATCH.broken(count=count, total=total))
        return
    same = alike(model(x[order])[order], logits)
    for i in range(min(ALONE, len(x))):
        same[i] &= alike(model(x[i : i + 1]), logits[i : i + 1])[0]
    if not same.all():
        raise Fouled(rules.DEPENDS_ON_THE_BATCH.broken(count=int((~same).sum()), total=len(x)))


def slope_of(model: nn.Module, x: Tensor, says: Tensor, random: bool) -> Finding | None:
    """A remark where the gradient is zero, or does not point uphill."""
    with unsuspecting():
        g = input_gradient(model, x, says)
    flat = g.flatten(1).abs().amax(1) == 0
    if 2 * int(flat.sum()) >= len(x):
        return rules.GRADIENT_GONE.broken(count=int(flat.sum()), total=len(x))
    if random:
        return None
    with torch.no_grad():
        ahead = (x + TINY * g.sign()).clamp(0, 1)
        losses = [torch.nn.functional.cross_entropy(model(each), says, reduction="none") for each in (x, ahead)]
    rises = int((losses[1] > losses[0])[~flat].sum())
    moving = int((~flat).sum())
    return rules.GRADIENT_MISLEADS.broken(count=rises, total=moving) if rises < UPHILL * moving else None


def check_memory(look: Look, scene: Scene) -> None:
    """Raise `Fouled` where the clean images are read otherwise after the attacks, or by a copy that never saw them."""
    draws = DRAWS if look.random else 1
    again = {"when they are shown again": read(look.model, scene.x, draws=draws)}
    if (copied := copy_reads(look.model, scene.x, draws)) is not None:
        again[BY_A_COPY] = copied
    for when, answers in again.items():
        count = int((answers.mode(0).values != look.says).sum())
        if count > (FEW * len(scene.x) if look.random else 0):
            raise Fouled(rules.REMEMBERS.broken(count=count, total=len(scene.x), which="clean", when=when))


def copy_reads(model: nn.Module, x: Tensor, draws: int) -> Tensor | None:
    """What copies of a submitted defense that were asked nothing else read, `(draws, N)`; None where there are none."""
    answers = [model.verdict(part, draws) if isinstance(model, Proxy) else None for part in x.split(BATCH)]
    return None if answers[0] is None else torch.cat(answers, 1)


def standing_after(look: Look, x_adv: Tensor, scene: Scene) -> Tensor:
    """Which images are read rightly after an attack, by a copy that never saw them clean, where there is one.

    Raises:
        Fouled: the model that was attacked, and is not random, reads them otherwise than its copy.
    """
    draws = DRAWS if look.random else 1
    attacked, copied = read(look.model, x_adv, draws=draws), copy_reads(look.model, x_adv, draws)
    if copied is not None and not look.random and (count := int((attacked != copied).sum())):
        raise Fouled(rules.REMEMBERS.broken(count=count, total=len(x_adv), which="attacked", when=BY_A_COPY))
    answers = attacked if copied is None else copied
    return (answers == scene.y).sum(0) * 2 > draws


def compared(rows: list[Row]) -> list[Finding]:
    """A remark where an attack that sees no gradient found what those that climb did not."""
    climbed = [row for row in rows if row.name not in BLIND]
    blind = [row for row in rows if row.name in BLIND]
    if not climbed or not blind:
        return []
    left = torch.stack([row.standing for row in climbed]).all(0)
    broken = {row.name: int((left & ~row.standing).sum()) for row in blind}
    name = max(broken, key=broken.get)
    least = max(3, len(left) // 10)
    return [rules.BLIND_WINS.broken(attack=name, count=broken[name])] if broken[name] >= least else []


# --- the match --------------------------------------------------------------------------------------------------------


def measured(look: Look, scene: Scene) -> Iterator[Row]:
    """A row for each attack that applies, clean images last judged by the labels that are kept here."""
    clean = stands(look.model, scene.x, scene.y, random=look.random)
    for name, attack in attacks_on(look).items():
        start = time.perf_counter()
        with unsuspecting():
            x_adv = attack(look, scene)
        standing = clean & standing_after(look, x_adv, scene)
        yield Row(name, rate(clean), rate(standing), None, standing, time.perf_counter() - start)


def defense_bout(submission: Submission, scene: Scene, budget: Budget) -> Iterator[Row | Bout]:
    """Let all attacks loose on a submitted defense.

    Args:
        submission: the defense, called as `defense(network, x, y)`: a trained LeNet, training images, their labels.
        scene: the images; they reach the defense as questions, their labels never.
        budget: what it may take to be built and to answer.
    Yields:
        a row for each attack, and last the bout; the first fatal finding ends it.
    """
    data, rows, found, given = load(scene.data), [], [], []
    weights = safetensors.torch.save(lenet_of(scene.data).state_dict())
    learned_from = data.x_train[:TRAINING].contiguous(), data.y_train[:TRAINING].contiguous()
    with Keeper(budget.memory, submission.name, "network, x, y") as keeper:
        try:
            secret = secret_of(scene, "defense")
            text, name = submission.text, submission.name
            keeper.begin("defense", text, name, weights, secret, float(scene.eps), *learned_from, data.num_classes)
            keeper.expect("begun", seconds=WAKING, doing="to define its function")
            built = keeper.receive(seconds=budget.seconds, allowed=budget.seconds, doing="to build the model")
            if built.kind != "ready":
                raise Fouled(rules.NO_MODEL.broken(came=texts(built, 1)[0] or "nothing"))
            look, remarks = look_at(Proxy(keeper, data.num_classes, budget.answering), scene)
            found += remarks
            given.append(look.says)
            for row in measured(look, scene):
                rows.append(row)
                yield row
            check_memory(look, scene)
            found += compared(rows)
        except Fouled as fouled:
            found.append(fouled.finding)
    yield Bout(tuple(rows), (*found, *afterwards(keeper, scene, given)), keeper.output)
