"""Chapter 10: a score along the strongest direction, a threshold, a class out of line, and a median that liars miss."""

from statistics import median

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from spai_lab.exercises.exercise import Exercise

CHAPTER = "10_cleaning_up"


# --- spectral_score


def my_spectral_score(R):
    """How far each input of a class lies out along the strongest direction.

    R: the features of the N inputs that have one label, a tensor (N, D).
    Returns the scores (N,), at least 0.
    """
    M = R - R.mean(0)
    v = torch.linalg.svd(M, full_matrices=False).Vh[0]
    return (M @ v).square()


def forgets_to_center(R):
    """It does not subtract the mean, so that the strongest direction is that of the class itself."""
    return (R @ torch.linalg.svd(R, full_matrices=False).Vh[0]).square()


def centers_too_late(R):
    """It centers what it projects, and not what it takes the direction from; center `R` before the decomposition."""
    return ((R - R.mean(0)) @ torch.linalg.svd(R, full_matrices=False).Vh[0]).square()


def centers_each_input(R):
    """It subtracts from each input the mean of its own features; subtract the mean over the inputs, `R.mean(0)`."""
    M = R - R.mean(1, keepdim=True)
    return (M @ torch.linalg.svd(M, full_matrices=False).Vh[0]).square()


def forgets_the_square(R):
    """It takes the length of the projection; the score is its square."""
    return my_spectral_score(R).sqrt()


def measures_all_directions(R):
    """That is the squared distance from the mean in all directions; the score looks along the strongest one alone."""
    return (R - R.mean(0)).square().sum(1)


def takes_the_weakest(R):
    """It projects on the direction in which the inputs differ least; singular values come largest first."""
    M = R - R.mean(0)
    return (M @ torch.linalg.svd(M, full_matrices=False).Vh[-1]).square()


def takes_a_column(R):
    """It takes a column of `Vh`; `torch.linalg.svd` returns the singular vectors as its rows."""
    M = R - R.mean(0)
    return (M @ torch.linalg.svd(M, full_matrices=False).Vh[:, 0]).square()


def forgets_the_singular_value(R):
    """That is the left singular vector, of length 1; its entries times the singular value are the projections."""
    return torch.linalg.svd(R - R.mean(0), full_matrices=False).U[:, 0].square()


def features_of_a_class(seed: int = 12) -> list[dict]:
    """Features around a mean far from zero, with some poison to one side."""
    generator = torch.Generator().manual_seed(seed)
    cases = []
    for count, dimensions, poisons in ((8, 3, 2), (40, 5, 4), (25, 16, 0)):
        R = 3 + torch.randn(count, dimensions, generator=generator, dtype=torch.float64)
        R[:poisons] += 4 * torch.rand(dimensions, generator=generator)
        cases.append({"R": R})
    return cases


def by_power_iteration(R) -> np.ndarray:
    """The strongest direction as the limit of multiplying by the covariance, again and again."""
    M = R.numpy() - R.numpy().mean(0)
    power = M.T @ M
    for _ in range(50):
        power = power @ power / np.linalg.norm(power @ power)
    v = power[:, np.abs(power).sum(0).argmax()]
    return (M @ (v / np.linalg.norm(v))) ** 2


def negative_scores(result: np.ndarray, **case: object) -> str | None:
    """What stands out in scores that cannot be."""
    return f"{(result < 0).sum()} scores are negative; a square is not." if result.min() < 0 else None


spectral_score = Exercise(
    chapter=CHAPTER,
    task=r"""
        **Score the inputs of a class.** Poison pulls the features of its class apart along one direction. Write
        `my_spectral_score(R)`: with the features $R_i$ of the inputs of one class and their mean $\hat R$,

        $$\tau_i = \big((R_i - \hat R) \cdot v\big)^2,$$

        where $v$ is the top right singular vector of the matrix with the rows $R_i - \hat R$.
    """,
    solution=my_spectral_score,
    truth=by_power_iteration,
    cases=features_of_a_class,
    tested="8, 40 and 25 inputs with 3, 5 and 16 features; the last class has no poison",
    hints=(
        "Subtract the mean over the inputs first; one row is left for each input.",
        "`torch.linalg.svd(M, full_matrices=False)` returns `U, S, Vh`, with the largest singular value first.",
        "The rows of `Vh` are the right singular vectors. `M @ v` projects every input at once; then square.",
    ),
    mistakes=(
        forgets_to_center,
        centers_too_late,
        centers_each_input,
        forgets_the_square,
        measures_all_directions,
        takes_the_weakest,
        takes_a_column,
        forgets_the_singular_value,
    ),
    look=negative_scores,
)


# --- strip_limit


def my_strip_limit(entropies, frr):
    """The entropy below which STRIP rejects an input.

    entropies: those of N clean inputs, a tensor (N,).
    frr: the share of clean inputs that may be rejected, such as 0.01.
    Returns a number.
    """
    quantile = torch.special.ndtri(torch.tensor(frr))
    return (entropies.mean() + quantile * entropies.std()).item()


def takes_the_upper_end(entropies, frr):
    """It puts the threshold at the upper end; a trigger makes the entropy low, so that the lower end is cut off."""
    return my_strip_limit(entropies, 1 - frr)


def takes_the_quantile_of_the_sample(entropies, frr):
    """It takes the quantile of the sample, which rests on a handful of inputs; take that of the fitted normal."""
    return entropies.quantile(frr).item()


def takes_both_ends(entropies, frr):
    """It divides the share between both ends; STRIP rejects at the lower end alone."""
    return my_strip_limit(entropies, frr / 2)


def takes_the_variance(entropies, frr):
    """It multiplies by the variance; the quantile counts standard deviations."""
    return (entropies.mean() + torch.special.ndtri(torch.tensor(frr)) * entropies.var()).item()


def forgets_the_mean(entropies, frr):
    """It measures from zero; the normal distribution is centered at the mean entropy."""
    return my_strip_limit(entropies, frr) - entropies.mean().item()


def takes_three_deviations(entropies, frr):
    """It goes three standard deviations down, whatever `frr` is; 1 % lies below 2.33 of them."""
    return (entropies.mean() - 3 * entropies.std()).item()


def clean_entropies(seed: int = 13) -> list[dict]:
    generator = torch.Generator().manual_seed(seed)
    cases = []
    for count, center, spread, frr in ((2000, 1.5, 0.2, 0.01), (1000, 0.9, 0.15, 0.01), (500, 2.0, 0.1, 0.05)):
        normal = torch.randn(count, generator=generator, dtype=torch.float64)
        cases.append({"entropies": center + spread * (normal + 0.1 * normal.square()), "frr": frr})
    return cases


def fitted_by_scipy(entropies, frr) -> float:
    return stats.norm(*stats.norm.fit(entropies.numpy())).ppf(frr)


def rejects_too_many(result: np.ndarray, entropies, frr) -> str | None:
    """What stands out in a threshold in the middle of the clean inputs."""
    share = (entropies < float(result)).double().mean()
    if share < 0.3:
        return None
    return f"{100 * share:.0f} % of the clean inputs lie below its threshold, and would be rejected."


strip_limit = Exercise(
    chapter=CHAPTER,
    task=r"""
        **One clean input in a hundred.** STRIP lays other images over an input and looks at the entropy of the answers.
        A trigger keeps it low, so an input *below* a limit is rejected. The defender knows clean inputs only, and takes
        their entropies to be normal, with mean $\mu$ and standard deviation $\sigma$. Write
        `my_strip_limit(entropies, frr)`: the limit that rejects a share `frr` of them,

        $$\mu + \sigma \, \Phi^{-1}(\mathrm{frr}).$$
    """,
    solution=my_strip_limit,
    truth=fitted_by_scipy,
    cases=clean_entropies,
    tested="2,000 and 1,000 clean inputs at 1 % and 500 at 5 %, against SciPy",
    hints=(
        "Toward which end of the clean entropies does a trigger move an input?",
        "$\\Phi^{-1}$ is the quantile of the standard normal: `torch.special.ndtri`, or `NormalDist().inv_cdf` of "
        "Python's `statistics`. For 0.01 it is -2.33.",
    ),
    mistakes=(
        takes_the_upper_end,
        takes_the_quantile_of_the_sample,
        takes_both_ends,
        takes_the_variance,
        forgets_the_mean,
        takes_three_deviations,
    ),
    look=rejects_too_many,
    tolerance=1e-3,
)


# --- backdoor_target


def my_backdoor_target(sizes):
    """The class whose reversed trigger is suspiciously small.

    sizes: the L1 norms of the masks that reach each class, a tensor (K,).
    Returns the class; -1 if none is suspicious; of several the smallest mask's.
    """
    middle = sizes.quantile(0.5)
    mad = (sizes - middle).abs().quantile(0.5)
    index = (sizes - middle).abs() / (1.4826 * mad)
    suspicious = (sizes < middle) & (index > 2)
    return sizes.argmin().item() if suspicious.any() else -1


def accused(sizes: Tensor, middle: Tensor, spread: Tensor) -> int:
    """The smallest mask's class if that mask is more than two spreads below the middle, else -1."""
    return sizes.argmin().item() if sizes.min() < middle - 2 * spread else -1


def takes_the_smallest(sizes):
    """It always accuses the smallest mask; without a backdoor one is the smallest, too: ask for an index above 2."""
    return sizes.argmin().item()


def accuses_large_masks(sizes):
    """It accuses masks that are too large; a backdoor is a shortcut, so only masks below the median count."""
    distance = (sizes - sizes.quantile(0.5)).abs()
    index = distance / (1.4826 * distance.quantile(0.5))
    return index.argmax().item() if index.max() > 2 else -1


def forgets_the_constant(sizes):
    """It forgets 1.4826, without which the median deviation of normal values is not their standard deviation."""
    middle = sizes.quantile(0.5)
    return accused(sizes, middle, (sizes - middle).abs().quantile(0.5))


def takes_mean_and_deviation(sizes):
    """It takes the mean and the standard deviation; the outlier itself inflates both, and hides."""
    return accused(sizes, sizes.mean(), sizes.std())


def takes_the_lower_middle(sizes):
    """For an even number `torch.median` returns the lower one of the two in the middle; take their mean."""
    middle = sizes.median()
    return accused(sizes, middle, 1.4826 * (sizes - middle).abs().median())


def centers_on_the_mean(sizes):
    """Its distances are from the mean; both the distances and their typical size refer to the median."""
    middle = sizes.mean()
    return accused(sizes, middle, 1.4826 * (sizes - middle).abs().quantile(0.5))


MASKS = (
    (52.0, 61.0, 48.0, 12.0, 57.0, 66.0, 54.0, 49.0, 58.0, 63.0),
    (58.0, 63.0, 56.0, 49.0, 47.0, 51.0, 57.0),
    (51.0, 45.0, 59.0, 14.0, 55.0, 63.0, 9.0, 58.0),
    (52.0, 63.0, 59.0, 51.0, 60.0, 57.0, 54.0, 18.0, 61.0, 100.0),
    (50.0, 59.0, 49.0, 52.0, 58.0, 45.0, 135.0),
    (38.0, 50.0, 61.0, 51.0, 66.0, 63.0, 54.0),
    (57.0, 51.0, 60.0, 31.0, 59.0, 43.0, 50.0, 58.0, 63.0, 49.0),
    (56.0, 52.5, 45.5, 57.5, 54.5, 61.0, 60.0, 60.5, 63.0, 54.0),
)


def reversed_masks() -> list[dict]:
    return [{"sizes": torch.tensor(sizes, dtype=torch.float64)} for sizes in MASKS]


def by_scipy(sizes) -> int:
    """The robust z-scores of NumPy's median and SciPy's deviation; a backdoor's is below -2."""
    sizes = sizes.numpy()
    z = (sizes - np.median(sizes)) / stats.median_abs_deviation(sizes, scale="normal")
    return int(z.argmin()) if z.min() < -2 else -1


def not_a_class(result: np.ndarray, sizes) -> str | None:
    """What stands out in a number that names no class."""
    if result in range(-1, len(sizes)):
        return None
    return f"It returns {result:.4g}; expected a class from 0 to {len(sizes) - 1}, or -1."


backdoor_target = Exercise(
    chapter=CHAPTER,
    task=r"""
        **Which class is the backdoor's target?** For each of $K$ classes Neural Cleanse has sought the smallest mask
        that turns all images into that class; $n_k$ is its size. A backdoor is a shortcut: the mask of its target is
        far too small. With the median $\tilde n$, the anomaly index is

        $$a_k = \frac{|n_k - \tilde n|}{1.4826 \cdot \mathrm{median}_j |n_j - \tilde n|}.$$

        Write `my_backdoor_target(sizes)`: class $k$ is suspicious if $n_k < \tilde n$ and $a_k > 2$. Return the
        suspicious class, the one with the smallest mask if there are several, and -1 if there is none. The median of an
        even number of values is the mean of the two in the middle.
    """,
    solution=my_backdoor_target,
    truth=by_scipy,
    cases=reversed_masks,
    tested=f"{len(MASKS)} models of 7 to 10 classes, with no backdoor, one or two, against SciPy",
    hints=(
        "A median serves twice: for the sizes, and for their distances from the first median.",
        "`torch.median` takes the lower one of two middle values; `sizes.quantile(0.5)` takes their mean.",
        "Among all the suspicious, the smallest mask is also the smallest of all: `sizes.argmin()`.",
    ),
    mistakes=(
        takes_the_smallest,
        accuses_large_masks,
        forgets_the_constant,
        takes_mean_and_deviation,
        takes_the_lower_middle,
        centers_on_the_mean,
    ),
    look=not_a_class,
)


# --- median_update


def my_median_update(updates):
    """What the server makes of the updates: the median of each coordinate.

    updates: one row for each of n participants, a tensor (n, D).
    Returns the median (D,); for an even n the mean of the two in the middle.
    """
    ordered = updates.sort(dim=0).values
    n = len(updates)
    return (ordered[(n - 1) // 2] + ordered[n // 2]) / 2


def takes_the_mean(updates):
    """It takes the mean, which a single liar can move anywhere."""
    return updates.mean(0)


def takes_the_lower(updates):
    """Of the two in the middle it takes the lower one, as `torch.median` does; take their mean."""
    return updates.median(dim=0).values


def takes_the_upper(updates):
    """Of the two in the middle it takes the upper one; take their mean."""
    return updates.sort(dim=0).values[len(updates) // 2]


def picks_one_participant(updates):
    """It picks the participant whose length is in the middle; each coordinate has a median of its own."""
    return updates[updates.norm(dim=1).argsort()[len(updates) // 2]]


def forgets_to_sort(updates):
    """It takes the middle rows as they came; sort each coordinate first."""
    n = len(updates)
    return (updates[(n - 1) // 2] + updates[n // 2]) / 2


def drops_the_ends(updates):
    """It drops the largest and the smallest value and takes the mean of the rest, which two liars can move anywhere."""
    return updates.sort(dim=0).values[1:-1].mean(0)


def updates_with_liars(seed: int = 15) -> list[dict]:
    generator = torch.Generator().manual_seed(seed)
    cases = []
    for participants, liars, dimensions in ((5, 2, 3), (8, 3, 6), (10, 0, 4)):
        updates = torch.randn(participants, dimensions, generator=generator)
        updates[:liars] += 50
        order = torch.randperm(participants, generator=generator)
        cases.append({"updates": updates[order]})
    return cases


def column_by_column(updates) -> np.ndarray:
    """Each coordinate alone, with Python's median."""
    return np.array([median(column) for column in updates.T.tolist()])


def beyond_the_honest(result: np.ndarray, updates) -> str | None:
    """What stands out in an aggregate that follows the liars."""
    if np.abs(result).max() < 10:
        return None
    return "The liars, who are fewer than half, have moved a coordinate beyond every honest value."


median_update = Exercise(
    chapter=CHAPTER,
    task=r"""
        **A median that liars miss.** $n$ participants send updates $V_1, \dots, V_n$, and some of them lie. Write
        `my_median_update(updates)`: for each coordinate $k$ by itself,

        $$g_k = \mathrm{med}\{V_{1k}, \dots, V_{nk}\}.$$

        For an even $n$ it is the mean of the two values in the middle.
    """,
    solution=my_median_update,
    truth=column_by_column,
    cases=updates_with_liars,
    tested="5, 8 and 10 participants, of whom 2, 3 and none lie",
    hints=(
        "`updates.sort(dim=0).values` sorts each coordinate by itself. Where in it is the middle?",
        "Counted from 0, the middle is at `(n - 1) // 2` and at `n // 2`; for an odd n that is the same place.",
    ),
    mistakes=(
        takes_the_mean,
        takes_the_lower,
        takes_the_upper,
        picks_one_participant,
        forgets_to_sort,
        drops_the_ends,
    ),
    look=beyond_the_honest,
)

EXERCISES = (spectral_score, strip_limit, backdoor_target, median_update)
