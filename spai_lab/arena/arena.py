"""The arena's entrance: submit an attack or a defense, see what came of it.

It runs what others wrote in a process, which is no sandbox: judge only what comes from people whom you would let sit at
your computer (`spai_lab.arena.child` says what is not stopped).
"""

import ast
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from tqdm.auto import tqdm

from spai_lab.arena import rules
from spai_lab.arena.duel import Bout, Row, attack_bout
from spai_lab.arena.limits import missing
from spai_lab.arena.match import defense_bout, look_at, measured
from spai_lab.arena.opponents import OPPONENTS, opponent
from spai_lab.arena.result import Result
from spai_lab.arena.scene import Scene, scene_of
from spai_lab.arena.submission import Budget, Submission, submission_of
from spai_lab.checks import check_choice, check_flag, describe
from spai_lab.metrics import Rate

KNOWN = ("no defense", "adversarial training")  # what a submitted defense is compared with


def arena_attack(
    attack: Callable | Path | str,
    *,
    budget: Budget | None = None,
    data: str | None = None,
    images: int | Path | str = 64,
    against: Sequence[str] | None = None,
    eps: float | None = None,
    seed: int | None = None,
    name: str | None = None,
    progress: bool = True,
) -> Result:
    """Let a submitted attack loose on all defenses.

    It runs in a process of its own, as `attack(model, x, y, eps=...)`, with `defense=` (the defense's name) and
    `generator=` too where it takes them. `y` are the defense's own answers; the labels stay here. What it returns is
    judged on a model that it never touched.

    Args:
        attack: a function written with `def`, a file of Python, or its text.
        budget: what it may spend on each defense; None takes `Budget()`.
        data: "digits" or "mnist"; None takes what `load()` takes.
        images: how many test images, moved a little in secret; or a file `.npz` of the lecturer's own.
        against: names of defenses; None takes all of `OPPONENTS`.
        eps: in L-inf; None takes that of the book's matrix.
        seed: of images and draws; None draws one that nobody knows, as for a contest.
        name: of the function in a file or text; None takes the last one.
        progress: show a bar.
    Returns:
        the result; a submission that breaks a rule is explained there and raises nothing.
    Raises:
        ValueError: names the argument; also where the function cannot be sent.
    """
    budget = checked_budget(budget)
    names = tuple(OPPONENTS) if against is None else tuple(against)
    for each in names:
        check_choice("against", each, tuple(OPPONENTS))
    if not names:
        raise ValueError("against is empty; accepted: names of defenses")
    submission, scene = submission_of(attack, name), scene_of(data, images=images, seed=seed, eps=eps)
    start = time.perf_counter()
    steps = attack_bout(submission, scene, budget, names)
    bout = watched(unless_broken(submission, steps), len(names), submission.name, progress)
    seconds = time.perf_counter() - start
    return Result("attack", submission.name, scene.data, str(scene), str(budget), *bout, seconds)


def arena_defense(
    defense: Callable | Path | str,
    *,
    budget: Budget | None = None,
    data: str | None = None,
    images: int | Path | str = 64,
    eps: float | None = None,
    seed: int | None = None,
    name: str | None = None,
    compare: bool = True,
    progress: bool = True,
) -> Result:
    """Let all attacks loose on a submitted defense.

    It is built in a process of its own, as `defense(network, x, y)`: a trained LeNet, training images and their labels
    (`eps=` and `generator=` too where it takes them), and returns a model. There it answers: logits, and their
    gradients. So the attacks see all of its slope, and nothing of its code.

    Args:
        defense: a function written with `def`, a file of Python, or its text.
        budget: what it may take to be built and to answer; None takes `Budget()`.
        data: "digits" or "mnist"; None takes what `load()` takes.
        images: how many test images, moved a little in secret; or a file `.npz` of the lecturer's own.
        eps: in L-inf; None takes that of the book's matrix.
        seed: of images and draws; None draws one that nobody knows, as for a contest.
        name: of the function in a file or text; None takes the last one.
        compare: measure two models that everybody knows under the same attacks.
        progress: show a bar.
    Returns:
        the result; a submission that breaks a rule is explained there and raises nothing.
    Raises:
        ValueError: names the argument; also where the function cannot be sent.
    """
    check_flag("compare", compare)
    budget = checked_budget(budget)
    submission, scene = submission_of(defense, name), scene_of(data, images=images, seed=seed, eps=eps)
    start = time.perf_counter()
    steps = defense_bout(submission, scene, budget)
    bout = watched(unless_broken(submission, steps), None, submission.name, progress)
    caught = any(finding.fatal for finding in bout[1])
    others = {known: survivors_of(known, scene) for known in KNOWN} if compare and not caught else {}
    spent = f"{budget.seconds:g} s to be built, {budget.answering:g} s to answer"
    seconds = time.perf_counter() - start
    return Result("defense", submission.name, scene.data, str(scene), spent, *bout, seconds, others)


def unless_broken(submission: Submission, steps: Iterable[Row | Bout]) -> Iterable[Row | Bout]:
    """The match; of a text that is no Python, which is never run, the finding that says so."""
    try:
        ast.parse(submission.text, filename="submission")
    except (SyntaxError, ValueError) as error:
        return [Bout((), (rules.BROKEN.broken(message=f"{error}"),), "")]
    return steps


def checked_budget(budget: Budget | None) -> Budget:
    """The budget, the usual one where none is given."""
    if budget is not None and not isinstance(budget, Budget):
        raise ValueError(f"budget is {describe(budget)}; accepted: a Budget, such as Budget(seconds=10)")
    return budget or Budget()


def watched(steps: Iterable[Row | Bout], total: int | None, name: str, progress: bool) -> tuple[tuple, tuple, str]:
    """Go through a match with a bar; what came of it. Ctrl-C ends it, and the submission's process with it."""
    check_flag("progress", progress)
    bout = Bout((), (), "")
    with tqdm(total=total, desc=name, unit=" rounds", leave=False, disable=not progress) as bar:
        for step in steps:
            if isinstance(step, Row):
                bar.set_postfix_str(step.name)
                bar.update()
            else:
                bout = step
    lacking = [rules.NOT_LIMITED.broken(missing=" or ".join(missing()))] if missing() else []
    return bout.rows, (*bout.found, *lacking), bout.output


def survivors_of(known: str, scene: Scene) -> Rate:
    """What all attacks leave of a known model, on the same images."""
    look, _ = look_at(opponent(known, scene.data).model, scene)
    standing = [row.standing for row in measured(look, scene)]
    whole = standing[0]
    for each in standing[1:]:
        whole = whole & each
    return Rate(int(whole.sum()), len(whole))
