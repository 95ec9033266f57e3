"""New cases for exercises of chapters 01 to 10 whose visible ones are written down."""

import numpy as np
import torch
from torch import nn

from spai_lab.assignments.chance import Cases, Draw, between, labels, mask, one_of, shuffled, whole
from spai_lab.exercises import chapter_01, chapter_04, chapter_06, chapter_09, chapter_10
from spai_lab.exercises.exercise import Exercise


def radii(g: torch.Generator, visible: Exercise) -> Cases:
    return [
        {"eps": eps, "unit": unit, "mean": between(g, 0.1, 0.9), "std": between(g, 0.1, 0.5)}
        for eps, unit in shuffled(
            g,
            [(between(g, 0.01, 0.5), "pixels")]
            + [(float(whole(g, 1, 64)), "gray levels") for _ in range(3)]
            + [(between(g, 0.2, 3), "normalized") for _ in range(3)],
        )
    ]


def outcomes(g: torch.Generator, visible: Exercise) -> Cases:
    count, classes = 14, chapter_01.CLASSES
    y, after, target = (labels(g, count, classes) for _ in range(3))
    before = torch.where(mask(g, count, share=0.7), y, labels(g, count, classes))
    images = {"model": nn.Flatten(), "x_adv": chapter_01.scores(after.tolist()), "y": y}
    x, none_right = (chapter_01.scores(classes.tolist()) for classes in (before, (y + 1) % classes))
    return [
        {"model": images["model"], "x": x, "x_adv": images["x_adv"], "y": y, "target": None},
        {"model": images["model"], "x": x, "x_adv": images["x_adv"], "y": y, "target": target},
        {"model": images["model"], "x": none_right, "x_adv": images["x_adv"], "y": y, "target": None},
    ]


def planes(g: torch.Generator, visible: Exercise) -> Cases:
    found = []
    for pixels, steps in ((2, whole(g, 5, 8)), (3, whole(g, 9, 12)), (5, 1)):
        normal = 0.2 + torch.rand(pixels, generator=g)
        offset = between(g, 0.2, 0.8) * float(normal.sum())
        x, x_adv = torch.zeros(pixels), torch.ones(pixels)
        found.append({"is_adversarial": chapter_04.beyond(normal, offset), "x": x, "x_adv": x_adv, "steps": steps})
    return found


def part_of_the_images(g: torch.Generator, visible: Exercise) -> Cases:
    cases = chapter_04.challenge()
    chosen = torch.randperm(len(cases[0]["y"]), generator=g)[:80]
    return [{**case, "x": case["x"][chosen], "y": case["y"][chosen]} for case in cases]


def stamped(g: torch.Generator, visible: Exercise) -> Cases:
    found = []
    for count, classes in ((16, 8), (9, 3), (12, 4)):
        target, y = whole(g, 0, classes - 1), labels(g, count, classes)
        predicted = torch.where(mask(g, count), torch.full_like(y, target), labels(g, count, classes))
        found.append({"predicted": predicted, "y": y, "target": target})
    return found


def renamed_classes(g: torch.Generator, visible: Exercise) -> Cases:
    found = []
    for moves in shuffled(g, chapter_06.MOVES):
        pairs = torch.from_numpy(np.argwhere(moves >= 0).repeat(moves.ravel(), axis=0))
        names = torch.randperm(len(moves), generator=g)
        before, after = names[pairs[torch.randperm(len(pairs), generator=g)]].unbind(1)
        found.append({"before": before, "after": after, "classes": len(moves)})
    return found


def mixed_gradients(g: torch.Generator, visible: Exercise) -> Cases:
    whole_kinds = torch.zeros(1, 4, 4), torch.randn(1, 4, 4, generator=g)
    corner, canceling, single = whole_kinds[1].clone(), torch.ones(1, 4, 4), torch.zeros(1, 4, 4)
    corner[:, :2, :2], canceling[:, ::2], single[0, whole(g, 0, 3), whole(g, 0, 3)] = 0, -1, -2.0
    kinds = (*whole_kinds, corner, canceling, single, 1e-30 * whole_kinds[1], 1e-12 * whole_kinds[1])
    every = [*kinds, -whole_kinds[1].abs(), *(one_of(g, kinds) for _ in range(whole(g, 1, 5)))]
    some = [kinds[0], *(one_of(g, kinds[1:]) for _ in range(whole(g, 2, 6)))]
    return [{"gradients": torch.stack(mixture)} for mixture in (shuffled(g, every), shuffled(g, some))]


def survivors(g: torch.Generator, visible: Exercise) -> Cases:
    shares = ((12, 0.7, 0.4), (9, 0.5, 0.8), (7, 0.6, 0.6), (5, 1.0, 0.0))
    return [
        {"robust_white": mask(g, count, share=white), "robust_black": mask(g, count, share=black)}
        for count, white, black in shares
    ]


def votes(g: torch.Generator, visible: Exercise) -> Cases:
    wins = [(n, round(n * between(g, *share))) for n, share in ((100, (0.8, 0.99)), (1000, (0.55, 0.9)))]
    odd = [(n, k) for n, k in ((whole(g, 80, 200), None), (whole(g, 80, 200), whole(g, 0, 20)))]
    counts = [*wins, *((n, n if k is None else k) for n, k in odd), (10000, 10000 - whole(g, 1, 99))]
    return [
        {"n_A": n_A, "n": n, "sigma": one_of(g, (0.25, 0.5, 1.0)), "alpha": one_of(g, (0.001, 0.01, 0.005))}
        for n, n_A in shuffled(g, counts)
    ]


def verdicts(g: torch.Generator, visible: Exercise) -> Cases:
    found = []
    for case in chapter_09.verdicts():
        order = torch.randperm(len(case["y"]), generator=g)
        moved = whole(g, -16, 16) / 8  # exact in binary, so that a score may equal the threshold
        rows = {name: case[name][order] for name in ("before", "after", "y", "scores")}
        found.append({**rows, "scores": rows["scores"] + moved, "threshold": case["threshold"] + moved})
    return found


def broken_images(g: torch.Generator, visible: Exercise) -> Cases:
    shapes = ((3, 12), (2, 10), (4, 15), (1, 9))
    return [
        {"broken": mask(g, *shape, share=0.25), "clean_right": mask(g, shape[1], share=0.8)}
        for shape in shuffled(g, shapes)
    ]


def renamed_masks(g: torch.Generator, visible: Exercise) -> Cases:
    """Another class has each size, in other units, which change no class that stands out."""
    unit = between(g, 0.5, 2)
    rows = (torch.tensor(sizes, dtype=torch.float64) for sizes in shuffled(g, chapter_10.MASKS))
    return [{"sizes": unit * sizes[torch.randperm(len(sizes), generator=g)]} for sizes in rows]


ATTACKS: dict[str, Draw] = {
    "eps_in_pixels": radii,
    "success_rate": outcomes,
    "to_boundary": planes,
    "transfer": part_of_the_images,
    "attack_success": stamped,
    "which_target": renamed_classes,
    "zero_gradient_share": mixed_gradients,
    "black_box_better": survivors,
    "certified_radius": votes,
    "evades": verdicts,
    "robust_count": broken_images,
    "backdoor_target": renamed_masks,
}
