"""The matrix of defenses and attacks: which images stand, one attack at a time and under all of them."""

from pathlib import Path
from string import ascii_lowercase

import pandas as pd
from matplotlib.figure import Figure

from spai_lab.figures import matrix
from spai_lab.metrics import Rate
from spai_lab.survey.defense_attacks import AS_PUBLISHED, FULL, TAILORED
from spai_lab.survey.defense_jobs import jobs, pairs
from spai_lab.survey.defense_models import DEFENSES
from spai_lab.survey.evasion_attacks import NORMS
from spai_lab.survey.ledger import Comparison, published
from spai_lab.survey.measure import measure

MODELS = {
    "digits": ("lenet", "lenet-distilled", "mlp", "thermometer"),
    "mnist": ("lenet", "lenet-distilled", "mlp", "strided-ibp", "strided-pgd", "strided-trades", "thermometer"),
}
BARS = ("clean", "its paper's attack", "adaptive attack")


def measure_defenses(
    name: str, *, full: bool = False, seed: int = 0, fresh: bool = False, workers: int = 1, file: Path | None = None
) -> dict:
    """Measure the matrix on one data set, `name`.

    Args:
        name: "digits" or "mnist".
        full: every attack that applies, in every norm, which takes hours; else eight attacks in L-inf.
        seed, fresh, workers, file: as in `measure`.
    Returns:
        the measurement.
    """
    title = f"defenses_full_{name}" if full else f"defenses_{name}"
    run = jobs(name, full=full)
    return measure(title, run, MODELS[name], data=name, seed=seed, fresh=fresh, workers=workers, file=file)


def standing(measurement: dict, norm: str = "linf") -> dict[tuple[str, str], list[bool]]:
    """For each defense and attack in one norm, whether each image stands."""
    rows = [row for row in measurement["rows"] if row["kind"] == "judged" and row["norm"] == norm]
    return {(row["defense"], row["attack"]): marks(row) for row in rows}


def marks(row: dict) -> list[bool]:
    """Whether each image of a row stands."""
    return [mark == "1" for mark in row["standing"]]


def survivors(measurement: dict, norm: str = "linf") -> dict[str, Rate]:
    """For each defense the images that stand under every attack that was run on it."""
    found: dict[str, list[list[bool]]] = {}
    for (defense, _), stands in standing(measurement, norm).items():
        found.setdefault(defense, []).append(stands)
    return {defense: Rate(sum(map(all, zip(*runs, strict=True))), len(runs[0])) for defense, runs in found.items()}


def defense_matrix(measurement: dict, norm: str = "linf") -> pd.DataFrame:
    """Defenses by attacks: the share of images that stand; NaN where the attack does not apply.

    Args:
        measurement: as `measure_defenses` returns it.
        norm: one in which it was measured, such as "linf" or "l2".
    Returns:
        shares in [0, 1]; a row a defense, a column an attack, "clean" for none of them, and "all" for the images that
        survive every attack of the row.

    >>> rows = [{"kind": "judged", "norm": "linf", "defense": "none"}] * 2
    >>> rows = [row | {"attack": a, "standing": s} for row, a, s in zip(rows, ("FGSM", "PGD"), ("110", "011"))]
    >>> defense_matrix({"rows": rows}).round(2).to_dict("records")
    [{'FGSM': 0.67, 'PGD': 0.67, 'all': 0.33}]
    """
    found = standing(measurement, norm)
    defenses = [name for name in DEFENSES if any(defense == name for defense, _ in found)]
    attacks = [name for name in FULL[norm] if any(attack == name for _, attack in found)]
    table = pd.DataFrame(
        {
            "clean" if attack == "none" else attack: [share(found.get((defense, attack))) for defense in defenses]
            for attack in attacks
        },
        index=defenses,
        dtype=float,
    )
    return table.assign(all=[survivors(measurement, norm)[defense].value for defense in defenses])


def table_defenses(measurement: dict, norm: str = "linf") -> Figure:
    """The matrix as a heatmap; a letter in an empty cell stands for the reason, given below.

    Args:
        measurement: as `measure_defenses` returns it.
        norm: one in which it was measured.
    Returns:
        the figure.

    Survey: secure AI, defenses against evasion.
    """
    table = defense_matrix(measurement, norm)
    full = measurement["name"].startswith("defenses_full")
    reasons = {
        (defense, attack): why
        for (of, defense, attack), why in left_out(measurement["data"], full=full).items()
        if of == norm and defense in table.index and attack in table.columns
    }
    letters = dict(zip(sorted(set(reasons.values())), ascii_lowercase, strict=False))
    eps = {row["eps"] for row in measurement["rows"] if row["kind"] == "judged" and row["norm"] == norm}
    radius = "" if eps == {None} else f", eps {min(eps):g}"
    title = f"{measurement['data']}, {NORMS.get(norm, norm)}{radius}: images that stand"
    fig = matrix(table.to_numpy(), list(table.index), list(table.columns), title=title)
    ax = fig.axes[0]
    for (defense, attack), why in reasons.items():
        place = table.columns.get_loc(attack) + 0.5, table.index.get_loc(defense) + 0.5
        ax.text(*place, letters[why], ha="center", va="center", fontsize=14, style="italic")
    ax.set_xlabel("\n".join(f"{letter}: {why}" for why, letter in letters.items()), loc="left", fontsize=13)
    return fig


def share(stands: list[bool] | None) -> float | None:
    """The share of images that stand; None where nothing was measured."""
    return None if stands is None else sum(stands) / len(stands)


def left_out(name: str, *, full: bool = False) -> dict[tuple[str, str, str], str]:
    """For each norm, defense and attack that was not measured together: why.

    >>> left_out("digits")["linf", "activation pruning", "AutoAttack"]
    'asks twice for the same answer'
    """
    return {(p.norm, p.defense, p.attack): p.left_out for p in pairs(name, full=full) if p.left_out is not None}


def three_bars(measurement: dict) -> dict[str, dict[str, Rate]]:
    """For each defense whose paper's attack was run: `BARS`, how many images stand under each.

    The adaptive bar counts what stands both the adaptive attack and the one made for the defense, if there is one:
    in L2 for Defense-GAN, as in its paper, in L-inf for the others.
    """
    published = {row["defense"]: marks(row) for row in measurement["rows"] if row["kind"] == "published"}
    bars = {}
    for defense in AS_PUBLISHED:
        norm = TAILORED.get(defense, ("linf", None))[0]
        found = standing(measurement, norm)
        knowing = [found[defense, attack] for attack in ("adaptive", "tailored") if (defense, attack) in found]
        if defense in published and knowing:
            runs = found[defense, "none"], published[defense], list(map(all, zip(*knowing, strict=True)))
            bars[defense] = {bar: Rate(sum(stands), len(stands)) for bar, stands in zip(BARS, runs, strict=True)}
    return bars


def defenses_compared(measurement: dict) -> list[Comparison]:
    """The published figures of masking defenses, each beside what was measured for it on MNIST."""
    ledger, bars = published(), three_bars(measurement)
    shown = {name: bars["defensive distillation"][bar] for name, bar in zip(("jsma", "cw"), BARS[1:], strict=True)}
    turned = {name: Rate(rate.trials - rate.hits, rate.trials) for name, rate in shown.items()}
    any_class = "toward any class; clean mistakes count as success"
    gan = bars["Defense-GAN"]
    stands = standing(measurement)["fast adversarial training", "PGD"]
    fast = Rate(sum(stands), len(stands))
    besides = (
        ("distillation-jsma", turned["jsma"], "T = 100", f"another attack: JSMA {any_class}"),
        (
            "distillation-carlini-wagner",
            turned["cw"],
            "T = 100",
            f"another attack: PGD on logits / T, L-inf, {any_class}",
        ),
        ("fast-pgd", fast, "fast adversarial training, PGD of 40 steps", "another network, no restarts"),
        ("thermometer-bpda", bars["thermometer"][BARS[2]], "MNIST, eps .3", "other data"),
        ("defense-gan-fgsm", gan[BARS[1]], "a small generator", "a generator trained for seconds"),
        ("defense-gan-adaptive", gan[BARS[2]], "a small generator, 2 in L2", "a generator trained for seconds"),
    )
    return [
        Comparison(ledger[name], rate.value, rate.trials, rate.interval, ours, differs)
        for name, rate, ours, differs in besides
    ]


def strongest(measurement: dict, norm: str = "linf") -> str:
    """In words, for each defense: the attack that leaves fewest images, and how many survive them all."""
    table, left = defense_matrix(measurement, norm), survivors(measurement, norm)
    lines = ["| defense | most harm by | leaves | survive all |", "|---|---|---:|---:|"]
    for defense, row in table.drop(columns=["clean", "all"]).iterrows():
        worst = row.dropna().idxmin()
        lines.append(f"| {defense} | {worst} | {100 * row[worst]:.0f} % | {left[defense]} |")
    return "\n".join(lines)


def outdone(measurement: dict, norm: str = "linf") -> list[tuple[str, float, str, float]]:
    """Where knowing the defense did not help: an attack that does not know of it leaves as few images, or fewer.

    Args:
        measurement: as `measure_defenses` returns it.
        norm: one in which it was measured.
    Returns:
        defense, the share that the adaptive attack leaves (the one made for the defense included), the better of
        Square and transfer, and what that leaves.

    >>> rows = [{"kind": "judged", "norm": "linf", "defense": "IBP"}] * 2
    >>> rows = [row | {"attack": a, "standing": s} for row, a, s in zip(rows, ("Square", "adaptive"), ("100", "110"))]
    >>> outdone({"rows": rows})
    [('IBP', 0.6666666666666666, 'Square', 0.3333333333333333)]
    """
    table = defense_matrix(measurement, norm).drop(index="none", errors="ignore")
    found = []
    for defense, row in table.iterrows():
        knowing = row.reindex(["adaptive", "tailored"]).min()
        unknowing = row.reindex(["Square", "transfer"]).dropna()
        if len(unknowing) and unknowing.min() <= knowing:
            found.append((defense, float(knowing), unknowing.idxmin(), float(unknowing.min())))
    return found
