"""Black-box evasion in the quick profile: the victim behind a query with a cap, or never asked at all."""

import time
from collections.abc import Callable

import torch

from spai_lab.attacks.evasion import (
    boundary,
    hop_skip_jump,
    mim,
    nes,
    one_pixel,
    pgd,
    square,
    substitute,
    transfer,
    transfer_matrix,
    zoo,
)
from spai_lab.models import lenet
from spai_lab.query import Query, answered
from spai_lab.survey.defense_models import seeded
from spai_lab.survey.evasion_jobs import Attempt, asking
from spai_lab.survey.evasion_scene import SUCCESS, Scene, attempted, distances, near_for, share_within, within_radii
from spai_lab.survey.headline import Headline
from spai_lab.survey.measure import counted
from spai_lab.threat import fooled
from spai_lab.training import reference

SURROGATES = ("mlp", "softmax")
SEEDS, ROUNDS = 100, 4  # the substitute's first images, and how often it is trained
SCORES, LABELS, COORDINATES = 1000, 3000, 20_000  # queries an image
SAMPLES = 50  # of NES a step
PIXELS = 5
POPULATION, GENERATIONS = 100, 50


def from_surrogates(here: Scene) -> Headline:
    """Made on two models of the attacker's own; who reads whose images, among the details."""
    models = {name: reference(name, here.data) for name in ("lenet", *SURROGATES)}
    right = torch.stack([~fooled(model, here.x, here.y) for model in models.values()]).all(0)

    def aimed(eps: float) -> Attempt:
        def attempt(model, x, y, generator):
            made = transfer([models[name] for name in SURROGATES], x, y, eps=eps, steps=10, generator=generator)
            return made, torch.zeros(len(x))

        return attempt

    rates = transfer_matrix(
        models, here.x[right], here.y[right], lambda model, x, y: mim(model, x, y, eps=here.eps, steps=10)
    )
    crossed = {made: {shown: counted(rate) for shown, rate in row.items()} for made, row in rates.items()}
    return within_radii(
        here,
        aimed,
        setup="made on an MLP and softmax regression",
        budget="10 gradients of the surrogates an image, no query",
        details={"made on, shown to": crossed},
    )


def from_a_copy(here: Scene) -> Headline:
    """Made on a network that learned the victim's labels; how well it learned them, among the details."""
    data, query = here.data, Query(here.victim, "labels")
    start = time.process_time()
    copied = substitute(
        query,
        data.x_val[:SEEDS],
        model=lenet(data.shape, data.num_classes, generator=seeded(here.seed)),
        rounds=ROUNDS,
        learning_rate=3e-3,
        generator=seeded(here.seed),
    )
    spent, asked = time.process_time() - start, query.total
    x, _ = data.sample(500, seed=here.seed)
    differ = int(fooled(copied, x, answered(Query(here.victim, "labels"), x)).sum())

    def aimed(eps: float) -> Attempt:
        def attempt(model, x, y, generator):
            return pgd(copied, x, y, eps=eps, generator=generator), torch.full((len(x),), asked / len(x))

        return attempt

    return within_radii(
        here,
        aimed,
        learned=spent,
        setup=f"PGD on a LeNet trained from {SEEDS} images",
        budget=f"{asked:,} queries in all, {ROUNDS} rounds of 10 epochs",
        details={"agreement with the victim": [len(x) - differ, len(x)], "queries in all": asked},
    )


def searching(here: Scene) -> Headline:
    """Square, which keeps what raises the loss."""
    return within_radii(
        here,
        lambda eps: asking(square, "scores", cap=SCORES, eps=eps, queries=SCORES),
        setup="scores",
        budget=f"{SCORES:,} queries an image",
    )


def estimating(here: Scene) -> Headline:
    """NES, which estimates the gradient."""
    steps = (SCORES - 1) // (SAMPLES + 1)
    return within_radii(
        here,
        lambda eps: asking(nes, "scores", cap=SCORES, eps=eps, steps=steps, samples=SAMPLES),
        setup="scores",
        budget=f"{SCORES:,} queries an image",
    )


def coordinatewise(here: Scene) -> Headline:
    """ZOO, which estimates the slope of one pixel at a time."""
    attempt = asking(zoo, "scores", cap=COORDINATES, searches=1, initial_c=10.0)
    return near_for(here, attempt, COORDINATES, "scores")


def walking(here: Scene) -> Headline:
    """The boundary attack."""
    return near_for(here, asking(boundary, "labels", cap=LABELS), LABELS, "labels")


def jumping(here: Scene) -> Headline:
    """HopSkipJump."""
    return near_for(here, asking(hop_skip_jump, "labels", cap=LABELS), LABELS, "labels")


def evolving(here: Scene) -> Headline:
    """A few pixels, by differential evolution; a single one, among the details."""

    def with_pixels(pixels: int) -> Attempt:
        return asking(one_pixel, "scores", pixels=pixels, population=POPULATION, generations=GENERATIONS)

    found = {pixels: attempted(here, with_pixels(pixels)) for pixels in (PIXELS, 1)}
    rates = {p: share_within(distances(here, outcome, "l0"), p) for p, outcome in found.items()}
    return Headline.of_rate(
        SUCCESS,
        rates[PIXELS],
        setup=here.setup("scores", f"{PIXELS} pixels"),
        budget=f"{POPULATION * (GENERATIONS + 1) + 1:,} queries an image at most",
        better="higher",
        details={"norm": "l0", "eps": PIXELS, "one pixel": counted(rates[1]), **found[PIXELS].cost},
    )


BLACK_BOX: dict[str, Callable[[Scene], Headline]] = {
    "substitute": from_a_copy,
    "transfer": from_surrogates,
    "zoo": coordinatewise,
    "nes": estimating,
    "square": searching,
    "one_pixel": evolving,
    "boundary": walking,
    "hop_skip_jump": jumping,
}
