"""Chapter 05: the labels whose flip does most damage, the slope along which a poison moves, and influence."""

from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from spai_lab.exercises.exercise import Exercise

CHAPTER = "05_poisoning"


# --- flip_labels


def my_flip_labels(f_clean, f_poisoned, y, k):
    """The labels after the k flips that cost least.

    f_clean: the clean classifier's score of each training input, a tensor (N,).
    f_poisoned: the poisoned classifier's scores, alike.
    y: the right labels (N,), each -1 or 1. k: how many to flip.
    Returns labels like y, of which exactly k are flipped.
    """

    def price(f):
        return (1 + y * f).clamp_min(0) - (1 - y * f).clamp_min(0)

    flipped = (price(f_poisoned) - price(f_clean)).argsort()[:k]
    labels = y.clone()
    labels[flipped] = -y[flipped]
    return labels


def hinge(y: Tensor, f: Tensor) -> Tensor:
    """The hinge loss of labels on scores."""
    return (1 - y * f).clamp_min(0)


def flipped_where_cheap(cost: Tensor, y: Tensor, k: int) -> Tensor:
    """The labels with the k cheapest flipped."""
    places = cost.argsort()[:k]
    return y.scatter(0, places, -y[places])


def forgets_the_clean(f_clean, f_poisoned, y, k):
    """It looks at the poisoned classifier alone; a flip should also be expensive for the clean one."""
    return my_flip_labels(torch.zeros_like(f_clean), f_poisoned, y, k)


def forgets_the_poisoned(f_clean, f_poisoned, y, k):
    """It looks at the clean classifier alone; a flip that the poisoned one does not believe in is not learned."""
    return my_flip_labels(f_clean, torch.zeros_like(f_poisoned), y, k)


def flips_the_dearest(f_clean, f_poisoned, y, k):
    """It flips the k labels with the largest cost; the attacker minimizes, so take the smallest."""
    return my_flip_labels(f_poisoned, f_clean, y, k)


def forgets_the_right_label(f_clean, f_poisoned, y, k):
    """It counts the loss of the flipped label alone; subtract that of the right label, which the flip saves."""
    return flipped_where_cheap(hinge(-y, f_poisoned) - hinge(-y, f_clean), y, k)


def forgets_the_hinge(f_clean, f_poisoned, y, k):
    """Its losses go below zero: the hinge loss max(0, 1 - y s) is flat beyond the margin."""
    return flipped_where_cheap(y * (f_poisoned - f_clean), y, k)


def flips_whatever_pays(f_clean, f_poisoned, y, k):
    """It flips every label with a negative cost; the budget is exactly `k` flips, no more and no fewer."""
    cost = hinge(-y, f_poisoned) - hinge(y, f_poisoned) - hinge(-y, f_clean) + hinge(y, f_clean)
    return torch.where(cost < 0, -y, y)


def classifiers(seed: int = 8) -> list[dict]:
    generator = torch.Generator().manual_seed(seed)
    cases = []
    for count, k in ((8, 3), (9, 1), (10, 4)):
        f_clean, f_poisoned = (2 * torch.randn(2, count, generator=generator)).unbind()
        y = torch.where(f_clean + 0.5 * torch.randn(count, generator=generator) > 0, 1, -1)
        cases.append({"f_clean": f_clean, "f_poisoned": f_poisoned, "y": y, "k": k})
    return cases


def best_of_all_choices(f_clean, f_poisoned, y, k) -> np.ndarray:
    """Every choice of k labels tried out, each with its total loss."""
    f_clean, f_poisoned, y = (value.double().numpy() for value in (f_clean, f_poisoned, y))
    choices = []
    for flipped in combinations(range(len(y)), k):
        labels = y.copy()
        labels[list(flipped)] *= -1
        loss = np.maximum(0, 1 - labels * f_poisoned) - np.maximum(0, 1 - labels * f_clean)
        choices.append((loss.sum(), labels))
    return min(choices, key=lambda choice: choice[0])[1]


def not_k_flips(result: np.ndarray, f_clean, f_poisoned, y, k) -> str | None:
    """What stands out in labels that are none, or break the budget."""
    if not np.isin(result, (-1, 1)).all():
        return "Some of its labels are neither -1 nor 1."
    flips = int((result != y.numpy()).sum())
    return f"The labels that differ from `y` number {flips}; expected k = {k}." if flips != k else None


flip_labels = Exercise(
    chapter=CHAPTER,
    task=r"""
        **Flips that do most damage.** A good flip is absurd to the clean classifier $f_0$, and yet the poisoned one,
        $f$, learns it. With the hinge loss $V(y, s) = \max(0, 1 - y s)$ and labels $y_i = \pm 1$, to flip the label of
        input $i$ costs

        $$c_i = \big[V(-y_i, f(x_i)) - V(y_i, f(x_i))\big] - \big[V(-y_i, f_0(x_i)) - V(y_i, f_0(x_i))\big].$$

        Write `my_flip_labels(f_clean, f_poisoned, y, k)`, the step that ALFA repeats: flip exactly the `k` labels of
        least cost, even where the cost is positive. The scores $f_0(x_i)$ and $f(x_i)$ are given; no two costs are the
        same.
    """,
    solution=my_flip_labels,
    truth=best_of_all_choices,
    cases=classifiers,
    tested="8, 9 and 10 inputs with 3, 1 and 4 flips, against all choices of that many labels",
    hints=(
        "The loss of a label is `(1 - y * f).clamp_min(0)`; that of the flipped label has a plus there.",
        "The two brackets are the same function of a score, once of `f_poisoned` and once of `f_clean`: subtract them.",
        "`cost.argsort()[:k]` gives the places of the `k` smallest costs; change the sign there, in a copy of `y`.",
    ),
    mistakes=(
        forgets_the_clean,
        forgets_the_poisoned,
        flips_the_dearest,
        forgets_the_right_label,
        forgets_the_hinge,
        flips_whatever_pays,
    ),
    look=not_k_flips,
)


# --- hypergradient_ridge


def my_hypergradient_ridge(x, y, x_val, y_val, lam):
    """The slope of the validation loss along the place of one poison.

    x, y: the training data, two tensors (N,); the last pair is the poison.
    x_val, y_val: the validation data, two tensors (M,).
    lam: the penalty on the weight, above 0.
    Returns a number: the derivative with respect to x[-1].
    """
    H = (x * x).sum() + lam
    w = (x * y).sum() / H
    slope_of_w = (y[-1] - 2 * w * x[-1]) / H
    slope_of_loss = ((w * x_val - y_val) * x_val).mean()
    return (slope_of_loss * slope_of_w).item()


def two_slopes(x, y, x_val, y_val, lam, factor=2) -> Tensor:
    """Those of the loss and of the weight, if the square of the poison's place had the slope `factor` times it."""
    H = (x * x).sum() + lam
    w = (x * y).sum() / H
    return torch.stack([((w * x_val - y_val) * x_val).mean(), (y[-1] - factor * w * x[-1]) / H])


def moves_the_numerator_alone(x, y, x_val, y_val, lam):
    """It differentiates only the numerator of w; the poison stands in the denominator, too."""
    return two_slopes(x, y, x_val, y_val, lam, factor=0).prod().item()


def forgets_the_two(x, y, x_val, y_val, lam):
    """A factor of 2 is missing: the denominator of w holds the square of the poison, whose derivative is 2 x."""
    return two_slopes(x, y, x_val, y_val, lam, factor=1).prod().item()


def turns_the_sign_around(x, y, x_val, y_val, lam):
    """Its sign is turned around: along it the validation loss falls, and the attacker wants it to rise."""
    return -my_hypergradient_ridge(x, y, x_val, y_val, lam)


def trains_without_the_penalty(x, y, x_val, y_val, lam):
    """It trains without the penalty; lambda belongs in the denominator of w."""
    return my_hypergradient_ridge(x, y, x_val, y_val, 0.0)


def sums_the_losses(x, y, x_val, y_val, lam):
    """It sums the losses of the validation points; the validation loss is their mean."""
    return my_hypergradient_ridge(x, y, x_val, y_val, lam) * len(x_val)


def stops_at_the_weight(x, y, x_val, y_val, lam):
    """That is how the weight moves with the poison; multiply by the slope of the validation loss along the weight."""
    return two_slopes(x, y, x_val, y_val, lam)[1].item()


def watches_the_training_loss(x, y, x_val, y_val, lam):
    """It watches the loss on the training data; the attacker wants to harm the loss on the validation data."""
    return my_hypergradient_ridge(x, y, x, y, lam)


def lines_with_a_poison(seed: int = 9) -> list[dict]:
    generator = torch.Generator().manual_seed(seed)
    cases = []
    for count, place, label, lam in ((5, 0.7, -2.0, 0.5), (12, -1.5, 1.0, 2.0), (1, 1.0, 0.5, 0.1)):
        x, x_val = (torch.randn(size, generator=generator, dtype=torch.float64) for size in (count, 6))
        x, y = torch.cat([x, x.new_tensor([place])]), torch.cat([1.5 * x, x.new_tensor([label])])
        cases.append({"x": x, "y": y, "x_val": x_val, "y_val": 1.5 * x_val + 0.2, "lam": lam})
    return cases


def difference_of_two_trainings(x, y, x_val, y_val, lam) -> float:
    """Train with the poison moved a little to either side, and divide the change of the loss by the distance."""

    def loss(step: float) -> float:
        place = x.numpy() + step * (np.arange(len(x)) == len(x) - 1)
        rows = np.append(place, np.sqrt(lam))[:, None]  # the penalty as one more point, with the label 0
        w = np.linalg.lstsq(rows, np.append(y.numpy(), 0), rcond=None)[0]
        return np.mean((w * x_val.numpy() - y_val.numpy()) ** 2) / 2

    return (loss(1e-5) - loss(-1e-5)) / 2e-5


hypergradient_ridge = Exercise(
    chapter=CHAPTER,
    task=r"""
        **Which way to move a poison.** The victim fits a line through the origin. Trained on $(x_i, y_i)$ with the
        penalty $\lambda$, it has the weight

        $$w = \arg\min_v \frac{1}{2} \sum_{i=1}^{N} (v x_i - y_i)^2 + \frac{\lambda}{2} v^2
        = \frac{\sum_i x_i y_i}{\sum_i x_i^2 + \lambda}.$$

        The last point, $x_N$, is the attacker's. To harm the loss on $M$ validation points $(u_j, t_j)$, move $x_N$ up
        the slope

        $$\frac{dL}{dx_N} = \frac{dL}{dw} \cdot \frac{dw}{dx_N}, \quad
        L = \frac{1}{2 M} \sum_{j=1}^{M} (w u_j - t_j)^2.$$

        Write `my_hypergradient_ridge(x, y, x_val, y_val, lam)`: it returns that slope.
    """,
    solution=my_hypergradient_ridge,
    truth=difference_of_two_trainings,
    cases=lines_with_a_poison,
    tested="2, 6 and 13 training points, against two trainings with the poison a little to either side",
    hints=(
        "Two factors: how the loss moves with the weight, and how the weight moves with the poison.",
        "The first one is the mean of $(w u_j - t_j) u_j$ over the validation points.",
        "For the second, use the quotient rule: $x_N$ is in the numerator, with the derivative $y_N$, and in the "
        "denominator, with $2 x_N$.",
    ),
    mistakes=(
        moves_the_numerator_alone,
        forgets_the_two,
        turns_the_sign_around,
        trains_without_the_penalty,
        sums_the_losses,
        stops_at_the_weight,
        watches_the_training_loss,
    ),
)


# --- influence_score


def my_influence_score(g_test, g_train, H):
    """What more weight on each training point would do to the loss on a test point.

    g_test: gradient of the test point's loss in the P weights, a tensor (P,).
    g_train: gradients of the N training points' losses, (N, P).
    H: Hessian of the training loss, (P, P), symmetric and positive definite.
    Returns the influences (N,); below 0 the point helps.
    """
    s_test = torch.linalg.solve(H, g_test)
    return -g_train @ s_test


def forgets_the_minus(g_test, g_train, H):
    """The minus is missing: more weight on a point moves the weights down its gradient."""
    return -my_influence_score(g_test, g_train, H)


def multiplies_by_the_hessian(g_test, g_train, H):
    """It multiplies by H; the inverse is asked for: find the s with H s = g."""
    return -g_train @ (H @ g_test)


def ignores_the_hessian(g_test, g_train, H):
    """It compares the gradients alone; the Hessian says how far the weights give way in each direction."""
    return -g_train @ g_test


def divides_by_the_diagonal(g_test, g_train, H):
    """It divides by the diagonal of H alone; the other entries couple the weights."""
    return -g_train @ (g_test / H.diagonal())


def leaves_one_out(g_test, g_train, H):
    """That is the effect of leaving each point out, -1/N times what is asked for: return the influence itself."""
    return -my_influence_score(g_test, g_train, H) / len(g_train)


def trained_models(seed: int = 10) -> list[dict]:
    generator = torch.Generator().manual_seed(seed)
    cases = []
    for weights, count in ((1, 3), (4, 6), (10, 25)):
        root = torch.randn(weights, 2 * weights, generator=generator, dtype=torch.float64)
        g_test, g_train = (torch.randn(*shape, weights, generator=generator).double() for shape in ((), (count,)))
        H = root @ root.T / len(root) + 0.1 * torch.eye(weights)
        cases.append({"g_test": g_test, "g_train": g_train, "H": H})
    return cases


def along_the_axes(g_test, g_train, H) -> np.ndarray:
    """Along each eigenvector of H by itself, where to solve is to divide by the eigenvalue."""
    curvatures, axes = np.linalg.eigh(H.numpy())
    shares = zip(curvatures, axes.T, strict=True)
    return -sum((g_train.numpy() @ axis) * (g_test.numpy() @ axis) / curvature for curvature, axis in shares)


influence_score = Exercise(
    chapter=CHAPTER,
    task=r"""
        **Whom does a prediction rest on?** Give training point $i$ a little more weight, and the weights of the model
        move by $-H^{-1} \nabla_\theta L(z_i)$, without training again. The loss on a test point then changes by

        $$I_i = -\nabla_\theta L(z_{test})^\top H^{-1} \, \nabla_\theta L(z_i)$$

        for each unit of weight. Write `my_influence_score(g_test, g_train, H)` for all $N$ training points. Solve, do
        not invert: one linear system serves them all.
    """,
    solution=my_influence_score,
    truth=along_the_axes,
    cases=trained_models,
    tested="models of 1, 4 and 10 weights with 3, 6 and 25 training points, against the eigenvectors of H",
    hints=(
        "H is symmetric, so it does not matter on which of the two gradients $H^{-1}$ works. Which one is the same for "
        "all training points?",
        "`torch.linalg.solve(H, g)` finds the s with H s = g.",
        "What is left are N scalar products of s with the rows of `g_train`, and a minus.",
    ),
    mistakes=(
        forgets_the_minus,
        multiplies_by_the_hessian,
        ignores_the_hessian,
        divides_by_the_diagonal,
        leaves_one_out,
    ),
)

EXERCISES = (flip_labels, hypergradient_ridge, influence_score)
