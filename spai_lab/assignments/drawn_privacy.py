"""New cases for exercises of chapters 11 to 17 whose visible ones are written down."""

import torch

from spai_lab.assignments.chance import Cases, Draw, between, mask, one_of, shuffled, whole
from spai_lab.crypto.ckks_context import SECURE_BITS
from spai_lab.exercises import chapter_11
from spai_lab.exercises.chapter_13 import answers, spending
from spai_lab.exercises.chapter_14 import chains
from spai_lab.exercises.chapter_17 import budgets
from spai_lab.exercises.exercise import Exercise

FEWEST_BITS, MOST_BITS = 23, 26  # of a scale; there are few smaller primes for a large ring
ROOM = 29  # bits that scale and logits may have together, so that the first prime has 30 at most


def services(g: torch.Generator, visible: Exercise) -> Cases:
    thetas = (1.2 * torch.randn(d + 1, generator=g, dtype=torch.float64) for d in shuffled(g, (1, 2, 4)))
    return [{"query": chapter_11.Service(theta), "d": len(theta) - 1} for theta in thetas]


def probabilities(g: torch.Generator, visible: Exercise) -> Cases:
    near = [between(g, 1e-4, 3e-3), between(g, 0.004, 0.02)]
    places = [*near, *(1 - p for p in near), *(between(g, 0.02, 0.98) for _ in range(6))]
    p = torch.tensor(places, dtype=torch.float64)
    return [{"p": p.clone(), "decimals": decimals} for decimals in shuffled(g, (0, 1, 2, 3))]


def polls(g: torch.Generator, visible: Exercise) -> Cases:
    counts = [whole(g, 0, answers.RESPONDENTS) for _ in range(4)] + [0, answers.RESPONDENTS]
    return [{"c": k / answers.RESPONDENTS, "epsilon": between(g, 0.3, 3)} for k in shuffled(g, counts)]


def queries(g: torch.Generator, visible: Exercise) -> Cases:
    """Each query of the visible cases, in ranges that are moved and stretched but stay on their side of 0."""
    found = []
    for case in shuffled(g, answers.queries()):
        unit = between(g, 0.5, 3)
        ends = {"low": unit * case["low"], "high": unit * case["high"]}
        found.append({**case, **ends, "n": case["n"] + whole(g, -2, 2), "epsilon": between(g, 0.1, 3)})
    return found


def series(g: torch.Generator, visible: Exercise) -> Cases:
    return [
        {"k": max(1, round(k * between(g, 0.9, 1.1))), "epsilon": epsilon * between(g, 0.9, 1.1), "delta_dp": delta_dp}
        for k, epsilon, delta_dp in shuffled(g, spending.SERIES)
    ]


def errors(g: torch.Generator, visible: Exercise) -> Cases:
    proven = [(between(g, 0.005, 0.1), between(g, 0.05, 0.6), one_of(g, (0.0, 1e-5, 0.02))) for _ in range(3)]
    other_way = [(fnr, fpr, delta_dp) for fpr, fnr, delta_dp in proven[:2]]
    nothing = [(between(g, 0.5, 0.7), between(g, 0.5, 0.7), 0.01), (between(g, 0.01, 0.1), 0.9999, 1e-3)]
    names = ("fpr", "fnr", "delta_dp")
    rows = [*proven, *other_way, (0.03, 0.2, 0.1), *nothing]
    return [dict(zip(names, row, strict=True)) for row in shuffled(g, rows)]


def networks(g: torch.Generator, visible: Exercise) -> Cases:
    """Other networks, beside the visible ones at the limits of the table, in another order."""
    words = ("weights", "square", "sum", "bias")
    new = []
    for scale_bits in (whole(g, FEWEST_BITS, MOST_BITS) for _ in range(3)):
        operations = [one_of(g, words) for _ in range(whole(g, 3, 8))]
        new.append((operations, scale_bits, whole(g, 2, 2 ** (ROOM - scale_bits) - 1)))
    names = ("operations", "scale_bits", "largest_logit")
    drawn = [dict(zip(names, network, strict=True)) | {"secure_bits": dict(SECURE_BITS)} for network in new]
    return shuffled(g, [*drawn, *chains.networks()])


def degrees(g: torch.Generator, visible: Exercise) -> Cases:
    return [{"degree": degree, "a": between(g, 0.4, 9)} for degree in shuffled(g, (2, 2, 3, 4, 5, 6))]


def trials(g: torch.Generator, visible: Exercise) -> Cases:
    counts = [whole(g, 8, 40), whole(g, 40, 200), whole(g, 500, 1500)]
    some = [(whole(g, 1, n - 1), n) for n in counts]
    edges = [(n, n) for n in counts[:1]] + [(0, n) for n in counts[1:2]]
    return [{"hits": hits, "trials": n} for hits, n in shuffled(g, [*some, *edges])]


def comparisons(g: torch.Generator, visible: Exercise) -> Cases:
    """The visible kinds in another order and unit; a power of two keeps gaps that are exact in binary."""
    unit = 2.0 ** whole(g, -3, 3)
    scaled = ("published", "measured", "tolerance")
    return [case | {name: unit * case[name] for name in scaled} for case in shuffled(g, visible.cases())]


def clips(g: torch.Generator, visible: Exercise) -> Cases:
    return [{"clip": between(g, 0.05, 8), "size": size} for size in shuffled(g, (2, 3, 4, 5))[:3]]


def part_of_the_votes(g: torch.Generator, visible: Exercise) -> Cases:
    """Votes on some of the images, with their classes renamed, and budgets nearby."""
    found = []
    for case in shuffled(g, visible.cases()):
        classes = next(iter(case["votes"].values())).shape[1]
        rows, names = torch.randperm(len(case["y"]), generator=g), torch.randperm(classes, generator=g)
        voted = {count: counts[rows][:, names] for count, counts in case["votes"].items()}
        y = names.argsort()[case["y"][rows]]
        found.append({**case, "votes": voted, "y": y, "epsilon": case["epsilon"] * between(g, 0.95, 1.05)})
    return found


def scenes(g: torch.Generator, visible: Exercise) -> Cases:
    found = []
    for low, high in shuffled(g, ((0.35, 0.65), (0.0, 1.0))):
        x = low + (high - low) * torch.rand(6, 1, 4, 4, generator=g)
        ask, drawing = budgets.Ask(whole(g, 0, 2**40), x), torch.Generator().manual_seed(whole(g, 0, 2**40))
        found.append({"ask": ask, "x": x, "eps": 0.25, "queries": 40, "generator": drawing})
    return found


def noisy_networks(g: torch.Generator, visible: Exercise) -> Cases:
    """Another network of squares, and other images, the first two alike."""
    [case] = visible.cases()
    weights = torch.randn(2, 16, generator=g, dtype=torch.float64) / 4
    one, other = (torch.rand(1, 1, 4, 4, generator=g, dtype=torch.float64) * 0.2 for _ in range(2))
    drawing = torch.Generator().manual_seed(whole(g, 0, 2**40))
    return [
        {**case, "network": type(case["network"])(weights), "x": torch.cat([one, one, other]), "generator": drawing}
    ]


def tables(g: torch.Generator, visible: Exercise) -> Cases:
    """The visible tables with their images in another order, and two that are drawn."""
    found = []
    for case in shuffled(g, visible.cases()):
        order = torch.randperm(len(case["unlimited"]), generator=g)
        found.append({**case, "standing": case["standing"][:, order], "unlimited": case["unlimited"][order]})
    drawn = [
        {**found[0], "standing": mask(g, *found[0]["standing"].shape, share=0.7), "unlimited": mask(g, 6, share=share)}
        for share in (0.0, 0.2)
    ]
    return shuffled(g, [*found, *drawn])


PRIVACY: dict[str, Draw] = {
    "steal_logistic": services,
    "rounding_blur": probabilities,
    "estimated_share": polls,
    "laplace_scale": queries,
    "epsilon_of_queries": series,
    "counterexample": clips,
    "lowest_epsilon": errors,
    "coefficient_chain": networks,
    "polynomial_relu": degrees,
    "wilson": trials,
    "few_queries": scenes,
    "verdict": comparisons,
    "teachers": part_of_the_votes,
    "noisy_mean": noisy_networks,
    "masking_signs": tables,
}
