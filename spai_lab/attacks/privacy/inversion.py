r"""Model inversion: the picture of a class, drawn from what a model says about pictures that the attacker shows it.

The attacker knows no training input. It starts from a black picture and changes it so that the model grows sure of the
class; with the weights it follows the slope of the confidence, without them it measures that slope by queries.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import trange

from spai_lab.attacks.evasion.estimation import ROWS, check_samples, nes_gradient
from spai_lab.checks import (
    check_callable,
    check_classes,
    check_count,
    check_flag,
    check_images,
    check_labels,
    check_model,
    check_number,
    check_steps,
    describe,
    warn_suspicious,
)
from spai_lab.metrics import Rate
from spai_lab.query import Query
from spai_lab.threat import fresh_generator, logits_of, value_and_gradient
from spai_lab.training.loop import in_mode

Images = Callable[[Tensor], Tensor]
SNAPSHOTS = 50  # pictures of a path, at most, where the caller does not say


@dataclass(frozen=True, eq=False, repr=False)
class Inverted:
    """What the attacker has drawn, and how it came about.

    Args:
        x: of each target the picture with the least cost, `(T, ...)` in [0, 1].
        confidence: what the victim thinks of it, `(T,)` in [0, 1], as it was revealed.
        taken: iterations that each target took, int64 `(T,)`.
        path: pictures on the way, `(S, T, ...)`; a target that has stopped stays as it is.
        iterations: after how many iterations each of them was taken, S rising numbers from 0.
    """

    x: Tensor
    confidence: Tensor
    taken: Tensor
    path: Tensor
    iterations: tuple[int, ...]

    def __repr__(self) -> str:
        low, high = (bound.item() for bound in self.confidence.aminmax())
        return f"Inverted: {len(self.x)} targets, confidence {low:.2f} to {high:.2f}, {max(self.taken)} iterations"


def model_inversion(
    victim: nn.Module | Query,
    targets: Tensor,
    *,
    shape: tuple[int, ...],
    start: Tensor | None = None,
    steps: int = 5000,
    patience: int = 100,
    threshold: float = 0.99,
    step_size: float = 0.1,
    process: Images | None = None,
    auxiliary: Images | None = None,
    logarithm: bool = False,
    samples: int | None = None,
    h: float = 0.01,
    every: int | None = None,
    observe: Callable[[int, Tensor, Tensor], None] | None = None,
    generator: torch.Generator | None = None,
    progress: bool = True,
) -> Inverted:
    r"""MI-Face: descend from a black picture to one that the model takes for the target class.

    $c(x) = 1 - f_t(x) + \mathrm{AuxTerm}(x), \quad
    x_i = \mathrm{Process}(x_{i-1} - \lambda \nabla c(x_{i-1})), \quad x_0 = 0$,
    until $c(x_i) \ge \max(c(x_{i-1}), \ldots, c(x_{i-\beta}))$ or $c(x_i) \le 1 - \gamma$; $f_t$ is the probability of
    the target class. The answer is the $x_i$ with the least cost.

    Args:
        victim: from `(N, *shape)` in [0, 1] to logits `(N, K)`: white-box; or a `Query` that reveals "scores" or
            "logits": black-box.
        targets: classes to draw, int64 `(T,)`, T at least 1; each is drawn by itself.
        shape: of one picture, `(C, H, W)`; or `(D,)`, of a code whose entries are in [0, 1] too.
        start: $x_0$, like one picture `(1, *shape)` or one each `(T, *shape)`, in [0, 1]; None takes zeros.
        steps: alpha, iterations at most, at least 1.
        patience: beta, at least 1: so many iterations without a lower cost are too many.
        threshold: gamma, the confidence that is enough, above 0, at most 1.
        step_size: lambda, above 0, in pixel units per unit of slope.
        process: from pictures to better pictures, `(N, *shape)` both, once an iteration; None leaves them. Either way
            they are clipped to [0, 1].
        auxiliary: AuxTerm, from pictures to what they cost, `(N,)`, differentiable; None for 0.
        logarithm: descend $-\log f_t$ in place of $1 - f_t$ and stop at $-\log \gamma$: the slope of $f_t$ carries the
            factor $f_t$, so that it vanishes where the target is unlikely, the slope of $\log f_t$ does not.
        samples: black-box: looks around the picture in an iteration, an even number from 2, in random directions as
            in `nes_gradient`; None looks along each pixel once, `prod(shape)` of them. One more look sees the cost.
        h: black-box: how far away a look is, in pixel units, above 0, at most .5. Confidences that are rounded to r
            show no slope below about r / h.
        every: keep the picture each so many iterations, at least 1; None keeps at most about 50.
        observe: called after each iteration with its number, the pictures `(T, *shape)` and the confidences `(T,)`.
        generator: source of the random directions; None draws a fresh one.
        progress: show a bar with the time left.
    Returns:
        the pictures, their confidences and the path.
    Raises:
        ValueError: an argument is out of its range; names it.
    Reference: Fredrikson 2015, CCS, "Model inversion attacks that exploit confidence information and basic
        countermeasures", algorithm 1; the defaults are those of section 5.
    Survey: private AI, threats by a user.
    Simplified: the paper reads gamma as a bound of the cost; here it is one of the confidence. Pixels are clipped.
        Where the paper leaves numeric gradients to a library, pixels are looked at one by one on one side, which is
        exact to the order of h, or random directions are. Starting from another picture, and the logarithm, are ours.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False))
    >>> _ = model[1].weight.data.copy_(4 * torch.eye(2))
    >>> settings = {"shape": (1, 1, 2), "steps": 30, "step_size": 1.0, "progress": False}
    >>> model_inversion(model, torch.tensor([0, 1]), **settings).x.round().flatten(1)
    tensor([[1., 0.],
            [0., 1.]])
    """
    y = check_inversion(victim, targets, shape, start, steps, patience, threshold, step_size, h, samples, every)
    check_hooks(process, auxiliary, observe, logarithm, progress)
    x = begin(victim, y, shape, start)
    generator = fresh_generator(generator, x.device)
    every = 1 + steps // SNAPSHOTS if every is None else every
    look = black_box(victim, y) if isinstance(victim, Query) else white_box(victim, y)

    def cost(log_f: Tensor) -> Tensor:
        return -log_f if logarithm else -torch.expm1(log_f)

    def aux(x: Tensor) -> Tensor:
        return x.new_zeros(len(x)) if auxiliary is None else priced(auxiliary, x)

    def slope(x: Tensor, images: Tensor, here: Tensor) -> Tensor:
        """The gradient of c: exact from the weights, estimated from queries; AuxTerm is the attacker's own."""
        if not isinstance(victim, Query):
            return value_and_gradient(lambda x: cost(look(x, images)) + aux(x), x)[1]
        g = measured(
            lambda x, images: cost(look(x, images)), x, images, here, samples=samples, h=h, generator=generator
        )
        return g if auxiliary is None else g + value_and_gradient(aux, x)[1]

    queries = 1 + (x[0].numel() if samples is None else samples)
    running = torch.arange(len(y), device=x.device)
    with torch.no_grad():
        log_f = look(x, running)
        c = cost(log_f) + aux(x)
    best, least, surest, taken = x.clone(), c.clone(), log_f.clone(), torch.zeros_like(y)
    recent = c.new_full((patience, len(y)), torch.inf)
    recent[0] = c
    enough = cost(torch.tensor(threshold, dtype=x.dtype).log()).item()
    path, iterations = [x.clone()], [0]
    for i in trange(1, steps + 1, desc="inversion", disable=not progress):
        if isinstance(victim, Query):
            running = running[victim.afford(running, queries)]
        if len(running) == 0:
            break
        g = slope(x[running], running, cost(log_f[running]))
        if i == 1:
            warn_flat(g)
        x[running] = processed(process, x[running] - step_size * g)
        with torch.no_grad():
            log_f[running] = look(x[running], running)
            c[running] = cost(log_f[running]) + aux(x[running])
        taken[running] = i
        lower = running[c[running] < least[running]]
        best[lower], least[lower], surest[lower] = x[lower], c[lower], log_f[lower]
        stop = (c[running] >= recent[:, running].amax(0)) | (c[running] <= enough)
        recent[i % patience, running] = c[running]
        running = running[~stop]
        if observe is not None:
            observe(i, x.clone(), log_f.exp())
        if i % every == 0 or len(running) == 0 or i == steps:
            path.append(x.clone())
            iterations.append(i)
    return Inverted(best, surest.exp(), taken, torch.stack(path), tuple(iterations))


def white_box(model: nn.Module, y: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """`(x, images) -> log f`, `(M,)`: the log-probability of each picture's target, differentiable."""

    def look(x: Tensor, images: Tensor) -> Tensor:
        return logits_of(model, x, y[images]).log_softmax(1).gather(1, y[images, None])[:, 0]

    return look


def black_box(query: Query, y: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """The same from what a query reveals; a confidence that was rounded to 0 counts as the smallest number there is."""

    def look(x: Tensor, images: Tensor) -> Tensor:
        answers = []
        for start in range(0, len(x), ROWS):
            rows = slice(start, start + ROWS)
            answer = query(x[rows], images[rows])
            check_classes(y[images[rows]], answer, "targets")
            f = answer.softmax(1) if query.reveals == "logits" else answer
            answers.append(f.gather(1, y[images[rows], None])[:, 0])
        f = torch.cat(answers)
        return f.clamp_min(torch.finfo(f.dtype).tiny).log()

    return look


def measured(
    cost: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    images: Tensor,
    here: Tensor,
    *,
    samples: int | None,
    h: float,
    generator: torch.Generator,
) -> Tensor:
    r"""The slope of a cost that can only be asked for.

    Along each pixel, $\hat g_k = \frac{c(x + h e_k) - c(x)}{h}$, with $-h$ where the pixel would leave [0, 1];
    or by `nes_gradient`, where looks outside [0, 1] are clipped before they are shown.

    Args:
        cost: `(points, images) -> (M,)`.
        x: pictures `(N, ...)` in [0, 1].
        images: the numbers of their targets `(N,)`.
        here: their costs `(N,)`, which are known.
        samples, h, generator: as in `model_inversion`.
    Returns:
        like `x`.
    """
    if samples is not None:

        def score(points: Tensor) -> Tensor:
            return cost(points.flatten(0, 1).clamp(0, 1), images.repeat(samples)).view(points.shape[:2])

        return nes_gradient(score, x, samples=samples, sigma=h, generator=generator)
    flat, slopes = x.flatten(1), []
    for n, pixels in enumerate(flat):
        step = torch.where(pixels + h <= 1, h, -h).to(x.dtype)
        for k in torch.arange(len(pixels), device=x.device).split(ROWS):
            looks = pixels.repeat(len(k), 1)
            looks[torch.arange(len(k), device=x.device), k] += step[k]
            there = cost(looks.view(-1, *x.shape[1:]), images[n].expand(len(k)))
            slopes.append((there - here[n]) / step[k])
    return torch.cat(slopes).view_as(x)


def identification_rate(judge: nn.Module, x: Tensor, targets: Tensor, *, k: int = 1) -> Rate:
    """How many reconstructions a judge recognizes, who has never seen the victim.

    Args:
        judge: `(N, C, H, W)` in [0, 1] to logits `(N, K)`: of another architecture, trained on other pictures of the
            same classes. Comes back in the mode in which it came.
        x: reconstructions `(T, C, H, W)` in [0, 1], T at least 1.
        targets: the classes that were attacked, int64 `(T,)`.
        k: the target must be among so many of its likeliest classes, from 1 to K; of 40 people 5 are a line-up.
    Returns:
        the rate, with its interval.
    Raises:
        ValueError: names the argument.
    Reference: Fredrikson 2015, CCS, section 5, where people on Mechanical Turk judge, from five pictures.
    Simplified: a network judges.

    >>> judge = nn.Flatten()
    >>> print(identification_rate(judge, torch.eye(3).view(3, 3, 1, 1) / 2, torch.tensor([0, 1, 0])))
    66.7 % (n = 3, 95 % interval 20.8 to 93.9)
    """
    check_images(x)
    check_labels(targets, x, "targets")
    check_model(judge, x)
    check_count("k", k)
    if len(x) == 0:
        raise ValueError(f"x is {describe(x)}; accepted: at least one reconstruction")
    with torch.no_grad(), in_mode(judge, training=False):
        logits = logits_of(judge, x, targets)
    check_number("k", k, low=1, high=logits.shape[1])
    return Rate(int((logits.topk(k, 1).indices == targets[:, None]).sum()), len(x))


def process_dae(
    encode: Images, decode: Images, *, strength: float = 0.1, sharpness: float = 0.5, patch: int = 5, window: int = 7
) -> Images:
    r"""Process-DAE: between two iterations the code is drawn, denoised, sharpened and written as a code again.

    $\mathrm{Process}(h) = \mathrm{Encode}(\mathrm{Sharpen}(\mathrm{NLMeansDenoise}(\mathrm{Decode}(h))))$.
    MI-Face then works on codes, and its victim is what the network does after its first layer.

    Args:
        encode: from pictures `(N, C, H, W)` to codes `(N, D)` in [0, 1].
        decode: back.
        strength, patch, window: of `nl_means`.
        sharpness: of `sharpen`.
    Returns:
        the `process` of `model_inversion`, `(N, D)` to `(N, D)`.
    Raises:
        ValueError: names the argument.
    Reference: Fredrikson 2015, CCS, algorithm 2.
    Simplified: smaller patches and windows than are usual, since the pictures are halved.

    >>> process_dae(lambda x: x.flatten(1), lambda code: code.view(-1, 1, 8, 8))(torch.full((1, 64), 0.5)).unique()
    tensor([0.5000])
    """
    check_callable("encode", encode)
    check_callable("decode", decode)

    @torch.no_grad()
    def process(code: Tensor) -> Tensor:
        denoised = nl_means(decode(code), strength=strength, patch=patch, window=window)
        return encode(sharpen(denoised, sharpness))

    return process


def nl_means(x: Tensor, *, strength: float = 0.1, patch: int = 5, window: int = 7) -> Tensor:
    r"""Non-local means: each pixel becomes the mean of those around it whose surroundings look like its own.

    $x'_i = \frac{\sum_j w_{ij} x_j}{\sum_j w_{ij}}$ over the window around i, with
    $w_{ij} = \exp(-d_{ij} / s^2)$ and $d_{ij}$ the mean square of the difference of the two patches.

    Args:
        x: pictures, floating point `(N, C, H, W)`; H and W more than half of the window and of the patch.
        strength: s, in pixel units, above 0.
        patch: width of the surroundings that are compared, in pixels; odd.
        window: width of the window, in pixels; odd. 1 changes nothing.
    Returns:
        like `x`.
    Raises:
        ValueError: names the argument.
    Reference: Buades et al. 2005, "A non-local algorithm for image denoising", CVPR.

    >>> x = torch.zeros(1, 1, 9, 9)
    >>> x[..., 4, 4] = 0.1
    >>> bool(nl_means(x, strength=1.0).max() < 0.003)
    True
    """
    check_number("strength", strength, low=0, exclusive=True)
    for name, width in (("patch", patch), ("window", window)):
        check_count(name, width)
        if width % 2 == 0 or width // 2 >= min(x.shape[-2:]):
            raise ValueError(f"{name} is {width}; accepted: an odd width, less than twice the picture's")
    height, width = x.shape[-2:]
    around = F.pad(x, [window // 2] * 4, mode="reflect")
    total, weights = torch.zeros_like(x), torch.zeros_like(x[:, :1])
    for down, right in product(range(window), repeat=2):
        x_j = around[..., down : down + height, right : right + width]
        squares = F.pad((x_j - x).square().mean(1, keepdim=True), [patch // 2] * 4, mode="reflect")
        w = (-F.avg_pool2d(squares, patch, stride=1) / strength**2).exp()
        total, weights = total + w * x_j, weights + w
    return total / weights


def sharpen(x: Tensor, amount: float) -> Tensor:
    r"""Unsharp masking, $x + a (x - \bar x)$ with $\bar x$ the mean of 3 x 3 pixels, clipped to [0, 1].

    >>> sharpen(torch.full((1, 1, 3, 3), 0.5), 2.0).unique()
    tensor([0.5000])
    """
    check_number("sharpness", amount, low=0)
    blurred = F.avg_pool2d(F.pad(x, [1] * 4, mode="reflect"), 3, stride=1)
    return (x + amount * (x - blurred)).clamp(0, 1)


def begin(victim: nn.Module | Query, y: Tensor, shape: tuple[int, ...], start: Tensor | None) -> Tensor:
    """A start for each target, in the dtype of the victim where it can be seen."""
    if start is not None:
        return start.detach().expand(len(y), *shape).clone()
    parameter = None if isinstance(victim, Query) else next(victim.parameters(), None)
    return torch.zeros(len(y), *shape, dtype=None if parameter is None else parameter.dtype, device=y.device)


def processed(process: Images | None, x: Tensor) -> Tensor:
    """The pictures after `process`, in [0, 1]; a hook that returns something else is named."""
    if process is None:
        return x.clamp(0, 1)
    better = process(x.clamp(0, 1))
    if not isinstance(better, Tensor) or better.shape != x.shape or not better.isfinite().all():
        raise ValueError(f"process returns {describe(better)}; accepted: finite, of the shape of its x, {x.shape}")
    return better.detach().to(x).clamp(0, 1)


def priced(auxiliary: Images, x: Tensor) -> Tensor:
    """What the pictures cost by the attacker's own account; a hook that returns something else is named."""
    price = auxiliary(x)
    if not isinstance(price, Tensor) or price.shape != x.shape[:1]:
        raise ValueError(f"auxiliary returns {describe(price)}; accepted: one cost for each of {len(x)} pictures")
    return price


def warn_flat(g: Tensor) -> None:
    """Warn if the cost of a target has no slope at the start."""
    flat = int((~g.flatten(1).any(1)).sum())
    if flat:
        warn_suspicious(
            f"The cost of {flat} of {len(g)} targets has no slope at the start, so that nothing can be drawn: the "
            "softmax is saturated (logarithm=True or another start may help), or its answers are rounded.",
            "11 (privacy attacks)",
        )


def check_inversion(
    victim: nn.Module | Query,
    targets: Tensor,
    shape: tuple[int, ...],
    start: Tensor | None,
    steps: int,
    patience: int,
    threshold: float,
    step_size: float,
    h: float,
    samples: int | None,
    every: int | None,
) -> Tensor:
    """The targets; raise `ValueError` unless they, the victim and all numbers are in range."""
    if isinstance(victim, Query):
        victim.require("scores", "logits")
    elif not isinstance(victim, nn.Module):
        raise ValueError(f"victim is {describe(victim)}; accepted: a torch.nn.Module, or a Query, which holds one")
    if not isinstance(targets, Tensor) or targets.dtype != torch.int64 or targets.ndim != 1 or len(targets) == 0:
        raise ValueError(f"targets is {describe(targets)}; accepted: at least one class, int64 of shape (T,)")
    check_labels(targets, targets, "targets")
    if not isinstance(shape, tuple | list | torch.Size) or not shape:
        raise ValueError(f"shape is {describe(shape)}; accepted: (C, H, W), or (D,)")
    for size in shape:
        check_count("shape", size)
    if start is not None:
        check_images(start, "start")
        if start.shape[1:] != tuple(shape) or len(start) not in (1, len(targets)):
            accepted = f"one picture of shape {(1, *shape)}, or one for each target"
            raise ValueError(f"start is {describe(start)}; accepted: {accepted}")
    check_steps(steps, step_size)
    check_count("patience", patience)
    check_number("threshold", threshold, low=0, high=1, exclusive=True)
    check_number("h", h, low=0, high=0.5, exclusive=True)
    if samples is not None:
        check_samples(samples)
    if every is not None:
        check_count("every", every)
    return targets


def check_hooks(
    process: Images | None, auxiliary: Images | None, observe: Callable | None, logarithm: bool, progress: bool
) -> None:
    """Raise `ValueError` unless what can be called can be, and the flags are flags."""
    for name, hook in (("process", process), ("auxiliary", auxiliary), ("observe", observe)):
        if hook is not None:
            check_callable(name, hook)
    check_flag("logarithm", logarithm)
    check_flag("progress", progress)
