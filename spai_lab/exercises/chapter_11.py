"""Chapter 11: an input that the model draws, evidence of membership, a model for d + 1 questions, and a blurred one."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal

import numpy as np
import torch
from scipy import special, stats
from torch import Tensor

from spai_lab.exercises.exercise import Exercise, Fault, call

CHAPTER = "11_privacy_attacks"


# --- invert_linear


def my_invert_linear(W, b, target, steps, step_size):
    """An input of which a softmax regression is sure that it is of the target class.

    W: weights (K, D); b: biases (K,). The probabilities of x are softmax(W x + b).
    target: a class. steps: how many steps to walk from x = 0. step_size: lambda.
    Returns x (D,), float32, in [0, 1].
    """
    x = torch.zeros(W.shape[1])
    for _ in range(steps):
        p = torch.softmax(W @ x + b, dim=0)
        gradient = -p[target] * (W[target] - p @ W)
        x = (x - step_size * gradient).clamp(0, 1)
    return x


def cost_gradient(W: Tensor, b: Tensor, x: Tensor, target: int) -> Tensor:
    """The gradient of 1 - p_t."""
    p = torch.softmax(W @ x + b, dim=0)
    return -p[target] * (W[target] - p @ W)


def climbs_the_cost(W, b, target, steps, step_size):
    """It walks up the cost, and makes the target class less likely: subtract the gradient of the cost."""
    return my_invert_linear(W, b, target, steps, -step_size)


def never_clips(W, b, target, steps, step_size):
    """It never comes back into [0, 1]: what it finds is no image, however sure the model is of it."""
    x = torch.zeros(W.shape[1])
    for _ in range(steps):
        x = x - step_size * cost_gradient(W, b, x, target)
    return x


def clips_at_the_end(W, b, target, steps, step_size):
    """It clips at the end only, and takes gradients outside [0, 1] on the way; come back after every step."""
    return never_clips(W, b, target, steps, step_size).clamp(0, 1)


def starts_at_gray(W, b, target, steps, step_size):
    """It starts at 0.5; where the walk ends depends on where it starts, and asked is x = 0."""
    x = torch.full((W.shape[1],), 0.5)
    for _ in range(steps):
        x = (x - step_size * cost_gradient(W, b, x, target)).clamp(0, 1)
    return x


def follows_the_logit(W, b, target, steps, step_size):
    """It follows the logit of the target alone; the probability also rises where the other logits fall."""
    x = torch.zeros(W.shape[1])
    for _ in range(steps):
        x = (x + step_size * W[target]).clamp(0, 1)
    return x


def climbs_the_logarithm(W, b, target, steps, step_size):
    """It climbs log p_t, a good cost, too, but another one: the gradient of p_t is p_t times as long."""
    x = torch.zeros(W.shape[1])
    for _ in range(steps):
        p = torch.softmax(W @ x + b, dim=0)
        x = (x + step_size * (W[target] - p @ W)).clamp(0, 1)
    return x


def takes_the_sign(W, b, target, steps, step_size):
    """It takes the sign of the gradient, as FGSM does; this step follows the gradient itself."""
    x = torch.zeros(W.shape[1])
    for _ in range(steps):
        x = (x - step_size * cost_gradient(W, b, x, target).sign()).clamp(0, 1)
    return x


def takes_one_step(W, b, target, steps, step_size):
    """It takes the gradient at x = 0 for all steps; take it anew where the walk stands."""
    slope = cost_gradient(W, b, torch.zeros(W.shape[1]), target)
    return (-steps * step_size * slope).clamp(0, 1)


def forgets_the_bias(W, b, target, steps, step_size):
    """It leaves out the biases, and so inverts another model."""
    return my_invert_linear(W, torch.zeros_like(b), target, steps, step_size)


def regressions(seed: int = 31) -> list[dict]:
    """Three models with another target each; on every way pixels stop at 0 and at 1."""
    generator = torch.Generator().manual_seed(seed)
    return [
        {
            "W": 2 * torch.randn(classes, pixels, generator=generator),
            "b": torch.randn(classes, generator=generator),
            "target": target,
            "steps": steps,
            "step_size": step_size,
        }
        for classes, pixels, target, steps, step_size in ((3, 6, 0, 12, 0.3), (2, 4, 1, 8, 0.4), (5, 12, 3, 20, 0.2))
    ]


def by_differences(W, b, target, steps, step_size) -> np.ndarray:
    """The same walk, with slopes from values of the cost in float64."""
    W, b, h = W.double().numpy(), b.double().numpy(), 1e-5

    def cost(x: np.ndarray) -> float:
        return 1 - special.softmax(W @ x + b)[target]

    x = np.zeros(W.shape[1])
    for _ in range(steps):
        slope = np.array([(cost(x + h * e) - cost(x - h * e)) / (2 * h) for e in np.eye(len(x))])
        x = np.clip(x - step_size * slope, 0, 1)
    return x


def no_image(result: np.ndarray, **case: object) -> str | None:
    """What stands out in a result with values that no pixel has."""
    if result.min() >= 0 and result.max() <= 1:
        return None
    return f"Its values run from {result.min():.3g} to {result.max():.3g}, and leave [0, 1]."


invert_linear = Exercise(
    chapter=CHAPTER,
    task=r"""
        **Draw what the model has in mind.** You hold a softmax regression, $p(x) = \mathrm{softmax}(W x + b)$, and not
        one of the images that it learned from. MI-Face starts from black, $x_0 = 0$, and walks to where the model is
        sure of the class $t$: it descends on the cost $c(x) = 1 - p_t(x)$, and stays among the images,

        $$x_{i+1} = \mathrm{clip}_{[0, 1]}\big(x_i - \lambda \nabla c(x_i)\big).$$

        Write `my_invert_linear(W, b, target, steps, step_size)`: $x$ after `steps` such steps, with `step_size` for
        $\lambda$.
    """,
    solution=my_invert_linear,
    truth=by_differences,
    cases=regressions,
    tested="models of 2, 3 and 5 classes, 8 to 20 steps, against slopes from differences of the cost in float64",
    hints=(
        "Autograd can do it: a copy of x with `requires_grad_()`, the cost, then `torch.autograd.grad(cost, x)[0]`.",
        "By hand: $\\nabla \\log p_t = w_t - \\sum_k p_k w_k$, the target's weights minus what the model expects, and "
        "$\\nabla p_t = p_t \\nabla \\log p_t$. In code, the sum is `p @ W`.",
        "The cost falls where p_t rises, so a step goes along $+\\nabla p_t$; then `.clamp(0, 1)`, in every step.",
    ),
    mistakes=(
        climbs_the_cost,
        never_clips,
        clips_at_the_end,
        starts_at_gray,
        follows_the_logit,
        climbs_the_logarithm,
        takes_the_sign,
        takes_one_step,
        forgets_the_bias,
    ),
    look=no_image,
    tolerance=1e-4,
)


# --- likelihood_ratio


def my_likelihood_ratio(p, inside, outside):
    """LiRA's evidence that an example was in the target model's training set.

    p: the target model's confidence in the example's label, between 0 and 1.
    inside: that of shadow models trained with the example, (n,); n at least 2.
    outside: that of shadow models trained without it, (m,); m at least 2.
    Standard deviations are those of a sample, which divide by n - 1.
    Returns a number; above 0: rather a member.
    """

    def log_density(phi, sample):
        mu, sigma = sample.mean(), sample.std()
        return -0.5 * ((phi - mu) / sigma) ** 2 - sigma.log()

    phi = inside.new_tensor(p).logit()
    return (log_density(phi, inside.logit()) - log_density(phi, outside.logit())).item()


def gaussian_ratio(
    phi: float,
    inside: Tensor,
    outside: Tensor,
    spread: Callable[[Tensor], Tensor] = torch.std,
    normalized: bool = True,
) -> float:
    """The log-ratio of two fitted Gaussians, or what is left of it if they are not normalized."""
    logs = [
        -0.5 * ((phi - sample.mean()) / spread(sample)) ** 2 - normalized * spread(sample).log()
        for sample in (inside, outside)
    ]
    return (logs[0] - logs[1]).item()


def log_odds(p: float) -> float:
    return math.log(p / (1 - p))


def skips_the_scaling(p, inside, outside):
    """It fits Gaussians to the confidences, which crowd below 1 and are not normal; take the log-odds first."""
    return gaussian_ratio(p, inside, outside)


def takes_the_logarithm(p, inside, outside):
    """It takes log p, which still ends at 0; the log-odds log(p / (1 - p)) go on in both directions."""
    return gaussian_ratio(math.log(p), inside.log(), outside.log())


def swaps_the_worlds(p, inside, outside):
    """Its sign is turned around: the world in which the model trained with the example goes on top."""
    return gaussian_ratio(log_odds(p), outside.logit(), inside.logit())


def forgets_the_spread(p, inside, outside):
    """It leaves out the logarithms of the standard deviations: a wide Gaussian is low, and so less likely anywhere."""
    return gaussian_ratio(log_odds(p), inside.logit(), outside.logit(), normalized=False)


def takes_the_variance(p, inside, outside):
    """It takes the variance for the standard deviation; distances from the mean count standard deviations."""
    return gaussian_ratio(log_odds(p), inside.logit(), outside.logit(), torch.var)


def divides_by_n(p, inside, outside):
    """It divides the squares by n; with few shadow models that is too narrow, and asked is the sample's, n - 1."""
    return gaussian_ratio(log_odds(p), inside.logit(), outside.logit(), lambda sample: sample.std(correction=0))


def shares_one_spread(p, inside, outside):
    """It takes one standard deviation for both worlds; each has its own."""
    both = torch.cat([sample.logit() - sample.logit().mean() for sample in (inside, outside)])
    spread = both.square().sum().div(len(both) - 2).sqrt()
    return gaussian_ratio(log_odds(p), inside.logit(), outside.logit(), lambda sample: spread)


def looks_outside_only(p, inside, outside):
    """It asks only how unlikely the answer is without the example, not whether it is more likely with it."""
    sample = outside.logit()
    return -stats.norm.logpdf(log_odds(p), sample.mean(), sample.std())


def returns_the_ratio(p, inside, outside):
    """It returns the ratio; asked is its logarithm, which neither overflows nor crowds at 0."""
    return math.exp(my_likelihood_ratio(p, inside, outside))


def answers_of_shadows(seed: int = 32) -> list[dict]:
    """A member, a non-member, one in doubt, and an example that is easy with and without training on it."""
    generator = torch.Generator().manual_seed(seed)
    cases = []
    for p, n, m, with_it, without in (
        (0.97, 16, 16, (4.0, 0.8), (1.0, 1.2)),
        (0.55, 8, 12, (3.0, 0.6), (0.5, 1.0)),
        (0.80, 5, 5, (1.5, 0.9), (1.0, 0.7)),
        (0.995, 32, 24, (5.5, 0.5), (5.0, 1.5)),
    ):
        inside, outside = (
            (mu + sigma * torch.randn(count, generator=generator, dtype=torch.float64)).sigmoid()
            for count, (mu, sigma) in ((n, with_it), (m, without))
        )
        cases.append({"p": p, "inside": inside, "outside": outside})
    return cases


def ratio_by_scipy(p, inside, outside) -> float:
    worlds = [special.logit(sample.numpy()) for sample in (inside, outside)]
    with_it, without = (stats.norm.logpdf(special.logit(p), np.mean(world), np.std(world, ddof=1)) for world in worlds)
    return with_it - without


likelihood_ratio = Exercise(
    chapter=CHAPTER,
    task=r"""
        **In or out?** A model that is sure of an example may have trained on it, or the example is just easy. LiRA
        compares two worlds: shadow models that trained with the example, and shadow models that did not. On the scale
        of the log-odds, $\phi = \log \frac{p}{1 - p}$, the answers of each world look normal. Write
        `my_likelihood_ratio(p, inside, outside)`: with means and standard deviations fitted to either world's $\phi$,

        $$\Lambda = \log N(\phi; \mu_\mathrm{in}, \sigma_\mathrm{in}^2)
        - \log N(\phi; \mu_\mathrm{out}, \sigma_\mathrm{out}^2).$$

        Here $p$ is the target model's confidence in the example's label; `inside` and `outside` are those of the shadow
        models.
    """,
    solution=my_likelihood_ratio,
    truth=ratio_by_scipy,
    cases=answers_of_shadows,
    tested="four examples with 5 to 32 shadow models in each world, against SciPy",
    hints=(
        "First put all confidences on the scale of the log-odds: `.logit()`; `torch.tensor(p)` makes a tensor of p.",
        "A Gaussian's log-density is $-\\frac{1}{2} (\\frac{\\phi - \\mu}{\\sigma})^2 - \\log \\sigma$, and a constant "
        "that drops out of the difference.",
        "`tensor.std()` divides by n - 1, as wanted. Each world has a mean and a standard deviation of its own.",
    ),
    mistakes=(
        skips_the_scaling,
        takes_the_logarithm,
        swaps_the_worlds,
        forgets_the_spread,
        takes_the_variance,
        divides_by_n,
        shares_one_spread,
        looks_outside_only,
        returns_the_ratio,
    ),
    tolerance=1e-3,
)


# --- steal_logistic


def my_steal_logistic(query, d):
    """The weights and the bias of a logistic regression, from its answers.

    query: from points (N, d) to p (N,), float64; p = 1 / (1 + exp(-(w x + b))).
    d: how many numbers a point has. Ask about d + 1 points at most.
    Returns the d weights and, last, the bias, a tensor (d + 1,).
    """
    points = torch.cat([torch.zeros(1, d), torch.eye(d)])
    z = torch.logit(query(points))
    return torch.cat([z[1:] - z[0], z[:1]])


def at_zero_and_units(query: Callable, d: int, link: Callable[[Tensor], Tensor] = torch.logit) -> tuple[Tensor, Tensor]:
    """What a link makes of the answers at 0, `(1,)`, and at the unit vectors, `(d,)`."""
    z = link(query(torch.cat([torch.zeros(1, d), torch.eye(d)])))
    return z[:1], z[1:]


def forgets_the_logit(query, d):
    """It takes the probabilities as they are; linear in x are their log-odds, log(p / (1 - p))."""
    bias, sums = at_zero_and_units(query, d, lambda p: p)
    return torch.cat([sums - bias, bias])


def takes_the_logarithm_of_p(query, d):
    """It takes log p; linear in x are the log-odds, log(p / (1 - p))."""
    bias, sums = at_zero_and_units(query, d, torch.log)
    return torch.cat([sums - bias, bias])


def leaves_the_bias_in(query, d):
    """Its weights still hold the bias: the log-odds at a unit vector are w_i + b, so subtract those at 0."""
    bias, sums = at_zero_and_units(query, d)
    return torch.cat([sums, bias])


def turns_the_odds_around(query, d):
    """All its signs are turned around: p belongs to class 1, so that the odds are p / (1 - p)."""
    return -my_steal_logistic(query, d)


def puts_the_bias_first(query, d):
    """It puts the bias first; asked is the bias last."""
    bias, sums = at_zero_and_units(query, d)
    return torch.cat([bias, sums - bias])


def takes_no_bias(query, d):
    """It returns no bias, as if the model's answer at 0 were 1/2; that answer reveals the bias."""
    bias, sums = at_zero_and_units(query, d)
    return torch.cat([sums - bias, torch.zeros_like(bias)])


def takes_the_slope_of_p(query, d):
    """It takes the slope of p, which is p (1 - p) times the weight; the log-odds have the weight itself as slope."""
    h = 1e-4
    p = query(torch.cat([torch.zeros(1, d), h * torch.eye(d)]))
    return torch.cat([(p[1:] - p[0]) / h, p[:1].logit()])


def asks_too_often(query, d):
    """It gets the model, and asks too often: d + 1 answers do for d + 1 unknowns, and one at 0 serves all weights."""
    ways = [query(torch.stack([torch.zeros(d), e])).logit() for e in torch.eye(d)]
    return torch.stack([*(z[1] - z[0] for z in ways), ways[0][0]])


@dataclass
class Service:
    """A logistic regression, weights first and bias last, that answers and counts the points it was asked about."""

    theta: Tensor
    asked: int = 0

    def __call__(self, x: Tensor) -> Tensor:
        d = len(self.theta) - 1
        if not isinstance(x, Tensor) or x.ndim != 2 or x.shape[1] != d:
            given = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(f"query got {given}; accepted: points (N, {d}), a single one as x[None]")
        self.asked += len(x)
        return torch.sigmoid(x.detach().double() @ self.theta[:-1] + self.theta[-1])


MODELS = ((1.5, -0.7, 0.4), (-2.0, 0.3, 0.9, 1.2, -1.1), (0.8, -0.25))


def services() -> list[dict]:
    return [{"query": Service(torch.tensor(theta, dtype=torch.float64)), "d": len(theta) - 1} for theta in MODELS]


def behind_the_service(query, d) -> np.ndarray:
    """The weights and the bias themselves, and a 0 for not having asked too often."""
    return np.array([*query.theta.tolist(), 0.0])


def steal(answer: Callable, query, d) -> object:
    """The answer's weights and bias, with a 1 behind them if it asked about more points than it may, else a 0."""
    theta = call(answer, query=query, d=d)
    if not isinstance(theta, Tensor):
        return theta
    if theta.shape != (d + 1,):
        raise Fault(f"It returns a tensor of shape {tuple(theta.shape)}; expected {(d + 1,)} for {d = }.")
    too_often = torch.tensor([query.asked > d + 1])
    return torch.cat([theta.detach().double(), too_often.double()])


def bad_thief(result: np.ndarray, query, d) -> str | None:
    """What stands out in a model that was stolen clumsily."""
    *theta, too_often = result
    if too_often:
        return f"It asks about more than {d + 1} points for {d = }."
    if not np.isfinite(theta).all():
        return "A weight is infinite: far from 0 the answer rounds to 0 or 1, and has no log-odds; ask nearer to 0."
    return None


steal_logistic = Exercise(
    chapter=CHAPTER,
    task=r"""
        **A model for d + 1 questions.** A service answers a point $x$ with the probability of class 1 by its logistic
        regression, $p(x) = 1 / (1 + e^{-(w \cdot x + b)})$, and takes a fee for each point. Every answer is a linear
        equation for what you do not know:

        $$\log \frac{p(x)}{1 - p(x)} = w \cdot x + b.$$

        Write `my_steal_logistic(query, d)`: the $d$ weights and, last, the bias. Ask about $d + 1$ points at most; they
        may all go into one call of `query`.
    """,
    solution=my_steal_logistic,
    truth=behind_the_service,
    cases=services,
    tested="models with 1, 2 and 4 weights, and how many points each was asked about",
    hints=(
        "You choose the points. At which one does the equation have the bias alone?",
        "At a unit vector $e_i$ it has the sum $w_i + b$. `torch.eye(d)` holds all of them, one a row.",
        "`torch.logit(p)` is log(p / (1 - p)). Subtract what you got at 0 from the others, and put it last.",
    ),
    mistakes=(
        forgets_the_logit,
        takes_the_logarithm_of_p,
        leaves_the_bias_in,
        turns_the_odds_around,
        puts_the_bias_first,
        takes_no_bias,
        takes_the_slope_of_p,
        asks_too_often,
    ),
    call=steal,
    look=bad_thief,
    tolerance=1e-4,
)


# --- rounding_blur


def my_rounding_blur(p, decimals):
    """How uncertain the log-odds are for whoever sees a probability rounded.

    p: what the service would answer without rounding, (N,), between 0 and 1, float64.
    decimals: to how many decimals it rounds.
    Returns the length of the interval of log-odds that give the same answer, (N,).
    """
    q, half = p.round(decimals=decimals), 10**-decimals / 2
    return (q + half).clamp(max=1).logit() - (q - half).clamp(min=0).logit()


def interval_length(low: Tensor, high: Tensor) -> Tensor:
    """The difference of the log-odds of two probabilities, which are moved into [0, 1] first."""
    return high.clamp(max=1).logit() - low.clamp(min=0).logit()


def centers_on_the_exact(p, decimals):
    """Its interval lies around the exact p, which the attacker does not see; center it on the rounded answer."""
    half = 10**-decimals / 2
    return interval_length(p - half, p + half)


def goes_a_whole_unit(p, decimals):
    """It goes a whole unit of the last decimal to either side; rounding moves a number by half a unit at most."""
    q = p.round(decimals=decimals)
    return interval_length(q - 10**-decimals, q + 10**-decimals)


def halves_the_length(p, decimals):
    """It halves the length; asked is how far it is from end to end, not from the middle to an end."""
    return my_rounding_blur(p, decimals) / 2


def measures_the_probability(p, decimals):
    """It measures the interval of the probabilities; the attacker's equation has log-odds in it."""
    q, half = p.round(decimals=decimals), 10**-decimals / 2
    return (q + half).clamp(max=1) - (q - half).clamp(min=0)


def takes_the_slope(p, decimals):
    """It multiplies by the slope of the log-odds, 1 / (q (1 - q)); over so wide an interval they bend."""
    q = p.round(decimals=decimals)
    return 10**-decimals / (q * (1 - q))


def cuts_off(p, decimals):
    """It cuts the further decimals off; rounding goes to the nearest."""
    q, half = (p * 10**decimals).floor() / 10**decimals, 10**-decimals / 2
    return interval_length(q - half, q + half)


def stays_off_the_ends(p, decimals):
    """It keeps away from 0 and 1, where the log-odds are infinite; behind an answer of 0 or 1 they may be any size."""
    q, half = p.round(decimals=decimals), 10**-decimals / 2
    return (q + half).logit(eps=1e-6) - (q - half).logit(eps=1e-6)


def answers_to_round() -> list[dict]:
    """Probabilities all over (0, 1), none of them halfway between two answers, many of them next to 0 and 1."""
    places = torch.tensor([0.0003, 0.0021, 0.0139, 0.1234, 0.3141, 0.4987, 0.6180, 0.8662, 0.9876, 0.9968, 0.9996])
    return [{"p": places.double(), "decimals": decimals} for decimals in (2, 1, 3, 0)]


def in_decimals(p, decimals) -> list[float]:
    """Decimal arithmetic, in which the ends of the intervals are exact."""
    unit = Decimal(1).scaleb(-decimals)
    lengths = []
    for value in p.tolist():
        q = Decimal(value).quantize(unit, rounding=ROUND_HALF_EVEN)
        low, high = q - unit / 2, q + unit / 2
        bounded = low > 0 and high < 1
        lengths.append(float((high / (1 - high)).ln() - (low / (1 - low)).ln()) if bounded else math.inf)
    return lengths


def blur(answer: Callable, p, decimals) -> object:
    """The answer's result, unless it asked for the log-odds of something that is no probability."""
    result = call(answer, p=p, decimals=decimals)
    if isinstance(result, Tensor) and result.isnan().any():
        raise Fault(
            "It returns NaN. At an answer of 0 or 1, either an end of the interval lies outside [0, 1], where there "
            "are no log-odds: clamp it. Or infinity is subtracted from infinity: measure from end to end."
        )
    return result


def worst_interval(result: np.ndarray, p, decimals) -> str:
    """Which length is worst, with the answer that it belongs to."""
    truth = np.array(in_decimals(p, decimals))
    with np.errstate(invalid="ignore"):
        i = int(np.where(result == truth, 0, np.abs(result - truth)).argmax())
    return (
        f"At `[{i}]` the answer is {p[i]:.{decimals}f} for `decimals = {decimals}`: the length of its interval of "
        f"log-odds is {truth[i]:.4g}, and not {result[i]:.4g}."
    )


rounding_blur = Exercise(
    chapter=CHAPTER,
    task=r"""
        **Blur the equation.** Now the service rounds its answers to $r$ decimals. The class that it names stays the
        same, unless the answer is a tie. The thief's equation does not: behind an answer $q$ lies any probability from
        $q - \frac{1}{2} 10^{-r}$ to $q + \frac{1}{2} 10^{-r}$, as far as that is within [0, 1]. Write
        `my_rounding_blur(p, decimals)`: for each exact $p$, rounded to $q$, how long the interval of log-odds is that
        would give the same answer,

        $$\mathrm{logit}\big(\min(1, q + \tfrac{1}{2} 10^{-r})\big) -
        \mathrm{logit}\big(\max(0, q - \tfrac{1}{2} 10^{-r})\big),
        \qquad \mathrm{logit}(p) = \log \frac{p}{1 - p}.$$

        It is infinite if an end is 0 or 1.
    """,
    solution=my_rounding_blur,
    truth=in_decimals,
    cases=answers_to_round,
    tested="11 probabilities from 0.0003 to 0.9996, rounded to 0, 1, 2 and 3 decimals, against decimal arithmetic",
    hints=(
        "Round first: the thief sees `q = p.round(decimals=decimals)`, and never p.",
        "Half a unit of the last decimal is `10**-decimals / 2`. What may be behind q begins and ends there.",
        "`.clamp(max=1)` and `.clamp(min=0)` keep the ends within [0, 1]; there `torch.logit` is infinite by itself.",
    ),
    mistakes=(
        centers_on_the_exact,
        goes_a_whole_unit,
        halves_the_length,
        measures_the_probability,
        takes_the_slope,
        cuts_off,
        stays_off_the_ends,
    ),
    call=blur,
    look=worst_interval,
    tolerance=1e-3,
)

EXERCISES = (invert_linear, likelihood_ratio, steal_logistic, rounding_blur)
