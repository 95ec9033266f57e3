"""Chapter 09: a threshold that clean inputs pay for, who evades it, and an image that has to survive every attack."""

import math
from fractions import Fraction
from itertools import product
from numbers import Real

import numpy as np
import torch
from torch import Tensor

from spai_lab.exercises.exercise import Exercise, call

CHAPTER = "09_detection"


# --- detector_threshold


def my_detector_threshold(scores, fpr):
    """The lowest threshold that spares the clean inputs.

    scores: of N clean inputs, a tensor (N,); higher is more suspicious.
    fpr: the share of clean inputs that may be flagged, from 0 to below 1.
    Returns a number; an input is flagged if its score is above it.
    """
    allowed = int(fpr * len(scores))
    return scores.sort(descending=True).values[allowed].item()


def by_rank(scores: Tensor, rank: int) -> float:
    """The score at a rank, 0 for the largest."""
    return scores.sort(descending=True).values[rank].item()


def takes_the_lower_end(scores, fpr):
    """It cuts at the lower end, and flags nearly all clean inputs; the suspicious scores are the high ones."""
    return scores.quantile(fpr).item()


def interpolates(scores, fpr):
    """It interpolates between two scores, as `quantile` does by itself, and in a small sample flags one too many."""
    return scores.quantile(1 - fpr).item()


def interpolates_upward(scores, fpr):
    """It takes the quantile's next higher score: safe, but one more input could often be flagged. Count them."""
    return scores.quantile(1 - fpr, interpolation="higher").item()


def assumes_a_normal(scores, fpr):
    """It takes the scores for normally distributed, and scores of detectors seldom are; sort the scores themselves."""
    return (scores.mean() + torch.special.ndtri(torch.tensor(1 - fpr)) * scores.std()).item()


def stops_at_the_last_flagged(scores, fpr):
    """It returns the score of the last input to be flagged, which is not above itself: go one score lower."""
    return by_rank(scores, int(fpr * len(scores)) - 1)


def goes_one_too_low(scores, fpr):
    """It goes one score too low, and flags one input too many: ranks count from 0."""
    return by_rank(scores, int(fpr * len(scores)) + 1)


def rounds_up(scores, fpr):
    """It rounds the number of inputs that may be flagged up; at most a share `fpr` may, so round down."""
    return by_rank(scores, math.ceil(fpr * len(scores)))


def takes_the_largest(scores, fpr):
    """It flags no clean input at all, and so hardly any attack; use up what `fpr` allows."""
    return scores.max().item()


def scales_the_largest(scores, fpr):
    """It takes a share of the largest score, one outlier; `fpr` is a share of the inputs."""
    return (1 - fpr) * scores.max().item()


def clean_scores(seed: int = 21) -> list[dict]:
    """Skewed scores, in no order; of the last two batches one has whole numbers with ties."""
    generator = torch.Generator().manual_seed(seed)
    cases = []
    for count, fpr in ((100, 0.05), (30, 0.05), (34, 0.03), (10, 0.05), (1000, 0.01)):
        uniform = torch.rand(count, generator=generator, dtype=torch.float64)
        cases.append({"scores": (-uniform.log()) ** 1.5, "fpr": fpr})
    whole = [9.0, *4 * [8.0], *7 * [5.0], *12 * [2.0], *16 * [1.0]]
    order = torch.randperm(len(whole), generator=generator)
    cases.append({"scores": torch.tensor(whole, dtype=torch.float64)[order], "fpr": 0.05})
    return cases


def flagged_clean(answer, scores, fpr):
    """How many clean inputs the answer's threshold flags; what is no number comes back as it is."""
    threshold = call(answer, scores=scores, fpr=fpr)
    number = isinstance(threshold, Real) or (isinstance(threshold, Tensor) and threshold.numel() == 1)
    if not number or isinstance(threshold, bool) or threshold != threshold:
        return threshold
    return (scores > float(threshold)).sum()


def most_allowed(scores, fpr) -> int:
    """The most inputs that any threshold flags without exceeding the share; a threshold cannot part equal scores."""
    values = scores.tolist()
    limit = Fraction(str(fpr)) * len(values)
    return max(count for t in values if (count := sum(value > t for value in values)) <= limit)


def too_many_or_too_few(result: np.ndarray, scores, fpr) -> str:
    """What stands out in the number of clean inputs flagged."""
    said = f"It flags {result:.0f} of {len(scores):,} clean inputs, {100 * result / len(scores):.3g} %"
    most = most_allowed(scores, fpr)
    if result > most:
        return f"{said}, and {100 * fpr:g} % are allowed."
    return f"{said}; a lower threshold would flag {most} of them, still at most {100 * fpr:g} %, and more attacks."


detector_threshold = Exercise(
    chapter=CHAPTER,
    task=r"""
        **What may suspicion cost?** A detector flags an input if its score is *above* a threshold $t$. The lower $t$
        is, the more attacks it catches, and the more clean inputs it flags for nothing. Write
        `my_detector_threshold(scores, fpr)`: from the scores $s_i$ of $N$ clean inputs a threshold with

        $$\frac{1}{N} \, \#\{i : s_i > t\} \le \mathrm{fpr},$$

        as low as these scores allow: of all thresholds that hold to it, one that flags the most clean inputs.
    """,
    solution=my_detector_threshold,
    truth=most_allowed,
    cases=clean_scores,
    tested="10 to 1,000 clean scores at 1, 3 and 5 %, one batch with ties, by how many of them are flagged",
    hints=(
        "How many of the N inputs may be flagged? Round down to a whole number, `allowed`.",
        "Sort the scores, the largest first. If t is the score at rank `allowed`, counted from 0, how many are above?",
        "An input whose score equals t is not flagged, which takes care of ties as well.",
    ),
    mistakes=(
        takes_the_lower_end,
        interpolates,
        interpolates_upward,
        assumes_a_normal,
        stops_at_the_last_flagged,
        goes_one_too_low,
        rounds_up,
        takes_the_largest,
        scales_the_largest,
    ),
    call=flagged_clean,
    look=too_many_or_too_few,
)


# --- evades


def my_evades(before, after, y, scores, threshold):
    """Which adversarial inputs get past the model and past its detector.

    before: the model's classes for the clean inputs, (N,).
    after: its classes for the adversarial inputs, (N,); y: labels (N,).
    scores: of the adversarial inputs, (N,); flagged if above threshold.
    Returns a mask, bool (N,).
    """
    return (before == y) & (after != y) & (scores <= threshold)


def forgets_the_detector(before, after, y, scores, threshold):
    """It counts inputs that the detector flags; whoever is flagged has not evaded."""
    return (before == y) & (after != y)


def forgets_the_model(before, after, y, scores, threshold):
    """Not to be flagged is not enough: an input that the model still reads rightly does no harm."""
    return scores <= threshold


def credits_old_errors(before, after, y, scores, threshold):
    """It counts inputs that the model misread before the attack; they are no success of the attacker."""
    return (after != y) & (scores <= threshold)


def compares_with_before(before, after, y, scores, threshold):
    """It asks whether the answer changed, also from wrong to right; ask whether it was right and now is wrong."""
    return (before != after) & (scores <= threshold)


def turns_the_detector_around(before, after, y, scores, threshold):
    """It keeps the inputs that are flagged, those above the threshold; the others evade."""
    return (before == y) & (after != y) & (scores > threshold)


def flags_at_the_threshold(before, after, y, scores, threshold):
    """A score equal to the threshold is not above it, and so not flagged."""
    return (before == y) & (after != y) & (scores < threshold)


def takes_either(before, after, y, scores, threshold):
    """It takes inputs that fool the model *or* stay unflagged; evading takes both at once."""
    return (before == y) & ((after != y) | (scores <= threshold))


def verdicts() -> list[dict]:
    """Every mixture of right, wrong and wrong otherwise before and after, with scores around the threshold."""
    before, after, side = torch.tensor(list(product((0, 1, 2), (0, 1, 2), (-1, 0, 1)))).T
    y = torch.arange(len(side)) % 3
    return [
        {
            "before": (y + before) % 3,
            "after": (y + after) % 3,
            "y": y.clone(),
            "scores": threshold + side / 4,
            "threshold": threshold,
        }
        for threshold in (0.5, -1.25)
    ]


def one_by_one(before, after, y, scores, threshold) -> list[bool]:
    columns = (column.tolist() for column in (before, after, y, scores))
    return [b == label and a != label and not s > threshold for b, a, label, s in zip(*columns, strict=True)]


def misjudged(result: np.ndarray, before, after, y, scores, threshold) -> str | None:
    """What stands out in a mask: an input that it gets wrong."""
    if not np.isin(result, (0, 1)).all():
        return "It returns other values than True and False."
    truth = one_by_one(before, after, y, scores, threshold)
    i = int((result != truth).argmax())
    verdict = "evades" if truth[i] else "does not evade"
    return (
        f"Input {i}, of class {y[i]}, was read as {before[i]} and is now read as {after[i]}, with a score of "
        f"{scores[i]:g} at a threshold of {threshold:g}: it {verdict}."
    )


evades = Exercise(
    chapter=CHAPTER,
    task=r"""
        **Past both.** Now the attacker answers: an adversarial input has to fool the model and stay below the
        detector's threshold. Write `my_evades(before, after, y, scores, threshold)`. An input evades if all three hold:
        the model had its clean version right, it gets the adversarial one wrong, and the adversarial one is not
        flagged. Flagged means a score *above* the threshold.
    """,
    solution=my_evades,
    truth=one_by_one,
    cases=verdicts,
    tested="27 inputs at two thresholds: every mixture of right and wrong, below, at and above the threshold",
    hints=(
        "Three questions, each with an answer for every input: right before? wrong after? not flagged?",
        "`&` joins masks; put each comparison in parentheses. What is the opposite of *above*?",
    ),
    mistakes=(
        forgets_the_detector,
        forgets_the_model,
        credits_old_errors,
        compares_with_before,
        turns_the_detector_around,
        flags_at_the_threshold,
        takes_either,
    ),
    look=misjudged,
)


# --- robust_count


def my_robust_count(broken, clean_right):
    """How many images withstand all attacks.

    broken: whether attack a made the model misread image i, bool (A, N).
    clean_right: whether the model reads the clean image rightly, bool (N,).
    Returns a whole number from 0 to N.
    """
    return (clean_right & ~broken.any(dim=0)).sum().item()


def averages_the_attacks(broken, clean_right):
    """It averages over the attacks; the attacker picks, image by image, whichever attack works."""
    return (clean_right & ~broken).sum(1).double().mean().item()


def takes_the_strongest_attack(broken, clean_right):
    """It takes the one attack that breaks the most; another one may break images that this one cannot."""
    return (clean_right & ~broken).sum(1).min().item()


def takes_the_weakest_attack(broken, clean_right):
    """It takes the attack that breaks the least; an image has to survive every attack."""
    return (clean_right & ~broken).sum(1).max().item()


def survives_one(broken, clean_right):
    """It counts images that survive some attack; one attack that works is enough to break an image."""
    return (clean_right & ~broken.all(dim=0)).sum().item()


def forgets_the_clean(broken, clean_right):
    """It counts images that the model misreads without any attack; they are not robust, whatever the table says."""
    return (~broken.any(dim=0)).sum().item()


def counts_the_broken(broken, clean_right):
    """It counts the images that some attack broke; count those that are left."""
    return (clean_right & broken.any(dim=0)).sum().item()


def returns_the_share(broken, clean_right):
    """It divides by N, and returns a share; asked for is the count."""
    return my_robust_count(broken, clean_right) / len(clean_right)


def divides_by_the_clean(broken, clean_right):
    """It divides by the images that were right; asked for is the count."""
    return my_robust_count(broken, clean_right) / clean_right.sum().item()


TABLES = (  # a row for each attack, 1 where it broke the image; last, which images are right when clean
    ("01000100", "00100100", "00010000", "11111101"),
    ("0110010010", "1110110110"),
    ("110000", "001100", "000011", "111111"),
    ("000000000000", "001100000100", "010001000000", "000100100000", "111111110110"),
)


def tables() -> list[dict]:
    cases = []
    for rows in TABLES:
        *broken, right = [[digit == "1" for digit in row] for row in rows]
        cases.append({"broken": torch.tensor(broken), "clean_right": torch.tensor(right)})
    return cases


def image_by_image(broken, clean_right) -> int:
    return sum(right and not any(column) for column, right in zip(broken.T.tolist(), clean_right.tolist(), strict=True))


def not_a_count(result: np.ndarray, broken, clean_right) -> str | None:
    """What stands out in a number that counts no images."""
    if result != round(float(result)):
        return f"It returns {result:.4g}; a count of images is a whole number."
    right = image_by_image(broken, clean_right)
    attacks, images = broken.shape
    return f"It returns {result:.0f} for {attacks} attacks on {images} images; expected {right}."


robust_count = Exercise(
    chapter=CHAPTER,
    task=r"""
        **Every attack, every image.** Several attacks have been tried on $N$ images; the table says which attack broke
        which. Write `my_robust_count(broken, clean_right)`: the number of robust images. An image is robust if the
        model reads it rightly when it is clean and *no* attack broke it. Attacks may have been run on misread images
        or not: what the table says of those does not matter.
    """,
    solution=my_robust_count,
    truth=image_by_image,
    cases=tables,
    tested="1 to 4 attacks on 6 to 12 images; in one table each attack breaks two images, and together all six",
    hints=(
        "The attacker tries everything, and one success is enough. Look at one image at a time: a column of the table.",
        "`broken.any(dim=0)` asks of each image whether any attack broke it.",
    ),
    mistakes=(
        averages_the_attacks,
        takes_the_strongest_attack,
        takes_the_weakest_attack,
        survives_one,
        forgets_the_clean,
        counts_the_broken,
        returns_the_share,
        divides_by_the_clean,
    ),
    look=not_a_count,
)

EXERCISES = (detector_threshold, evades, robust_count)
