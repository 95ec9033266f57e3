r"""Private training: bound what each example may add to a step, then hide it in noise.

A step $\theta \leftarrow \theta - \eta \tilde g$ releases $\tilde g = \frac{1}{q n} \left( \sum_{i \in S} \min(1,
C / \|g_i\|) \, g_i + N(0, \sigma^2 C^2 1) \right)$, where S holds each of the n examples with probability q. Clipping
makes C the sensitivity of the sum, the noise hides that much, and chance hides who took part. The accountant of
`spai_lab.privacy.accounting` adds up what all steps tell.
"""

import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from spai_lab.checks import check_choice, check_count, check_flag, check_number, describe
from spai_lab.privacy.accounting import check_noise, dp_sgd_guarantee
from spai_lab.privacy.guarantee import ADD_REMOVE, Guarantee, labeled
from spai_lab.privacy.per_example import (
    Gradients,
    check_clip,
    check_examples,
    clipped_sum,
    fast_clipped_sum,
    gradient_norms,
    is_fast,
    per_example_gradients,
    rehearsal,
    same_draws,
    trained_parameters,
)
from spai_lab.privacy.secure import add_secure_noise, check_source, noise_grid
from spai_lab.threat import fresh_generator
from spai_lab.training.checkpoints import Run, discard, restore, save
from spai_lab.training.digests import digest_tensors
from spai_lab.training.loop import Diverged, check_data, in_mode

__all__ = [
    "Diagnostics",
    "PrivateHistory",
    "check_private",
    "dp_sgd",
    "per_example_gradients",
    "poisson_batches",
    "private_gradient",
]

COVERED = ("the weights after every step",)
COVERED_OF_KNOWN = ("the weights after every step, given the number of records",)
ROOM = 2**21  # numbers that the gradients of the examples of one pass may fill


@dataclass(frozen=True)
class Diagnostics:
    """What a look into the data showed of each step. The guarantee does NOT cover it: for the trainer's eyes alone.

    Args:
        batch_sizes: examples in each step.
        clipped: how many of them had a gradient longer than the clipping norm.
    """

    batch_sizes: tuple[int, ...]
    clipped: tuple[int, ...]

    @property
    def clipped_share(self) -> float:
        """The share of all gradients that were clipped; NaN if there were none."""
        return sum(self.clipped) / sum(self.batch_sizes) if any(self.batch_sizes) else math.nan


@dataclass(frozen=True)
class PrivateHistory:
    """What may be told of a private training run.

    Args:
        guarantee: what the weights promise, from the settings alone; epsilon is infinite without noise.
        steps: how many were taken.
        seconds: wall-clock time of the steps; it grows with the batches, and the guarantee does not cover it.
        seeded: whether the run had a generator: then it is a demonstration, not private, since whoever knows the seed
            can take the noise off again.
        diagnostics: what the guarantee does not cover; None unless asked for.
    """

    guarantee: Guarantee
    steps: int
    seconds: float
    seeded: bool
    diagnostics: Diagnostics | None = None

    def __str__(self) -> str:
        return f"{self.steps} steps, {labeled(self.guarantee, self.seeded)}"


def private_gradient(
    gradients: Gradients,
    *,
    clip: float,
    noise_multiplier: float,
    expected_batch: float,
    secure: bool = False,
    generator: torch.Generator | None = None,
) -> Gradients:
    r"""The gradient that a step releases: clip each example's, sum, add noise, divide by a number known beforehand.

    $\tilde g = \frac{1}{B} \left( \sum_i \min(1, C / \|g_i\|) \, g_i + N(0, \sigma^2 C^2 1) \right)$

    Args:
        gradients: by name of a parameter, `(N, ...)` each, finite; N may be 0, then only noise is left.
        clip: C, the bound of each example's gradient over all parameters together, above 0: the L2 sensitivity of the
            sum when one example is added or removed. Infinity does not clip, and is accepted without noise alone.
        noise_multiplier: $\sigma$, the noise in units of C, at least 0.
        expected_batch: B = q n, above 0; never N, which would tell how many took part.
        secure: noise from a cryptographic source, on a grid, as `add_secure_noise`; refuses a generator.
        generator: draws the noise; None draws a fresh one. With one, the run is a demonstration, not private.
    Returns:
        by name of a parameter, without the first dimension.
    Raises:
        ValueError: names the argument.
    Reference: Abadi 2016, arXiv 1607.00133, algorithm 1, "clip gradient" and "add noise".
    Survey: private AI, differential privacy, gradient level.
    Simplified: in floating point a clipped gradient may be longer than C by rounding, about 1e-6 of C.

    >>> gradients = {"weight": torch.tensor([[3.0, 4.0], [0.0, 0.5]])}
    >>> private_gradient(gradients, clip=1.0, noise_multiplier=0.0, expected_batch=2)["weight"]
    tensor([0.3000, 0.6500])
    """
    check_gradients(gradients)
    check_clip(clip, noise_multiplier)
    check_number("expected_batch", expected_batch, low=0, exclusive=True)
    check_source(secure, generator, next(iter(gradients.values())).device)
    total = clipped_sum(gradients, clip)
    return noised(total, noise_multiplier * clip if noise_multiplier else 0.0, expected_batch, secure, generator)


def noised(
    total: Gradients, std: float, expected_batch: float, secure: bool, generator: torch.Generator | None
) -> Gradients:
    """A clipped sum plus Gaussian noise of a standard deviation, by the expected size of the batch."""
    if std and secure:
        total = {name: add_secure_noise(value, std) for name, value in total.items()}
    elif std:
        generator = fresh_generator(generator, next(iter(total.values())).device)
        total = {name: value + std * normal_like(value, generator) for name, value in total.items()}
    return {name: value / expected_batch for name, value in total.items()}


def normal_like(value: Tensor, generator: torch.Generator) -> Tensor:
    """Independent standard normals in the shape of a tensor."""
    return torch.randn(value.shape, dtype=value.dtype, device=value.device, generator=generator)


def poisson_batches(
    n: int, sampling_rate: float, steps: int, generator: torch.Generator | None = None, *, secure: bool = False
) -> Iterator[Tensor]:
    r"""Batches in which each example takes part by a coin of its own, with probability q.

    The size varies, $|S| \sim \mathrm{Binomial}(n, q)$, and may be 0. The accountant counts on these coins: shuffling
    into batches of one size, as ordinary training does, is another mechanism with another, larger epsilon.

    Args:
        n: how many examples there are, at least 1.
        sampling_rate: q, above 0, at most 1.
        steps: how many batches, at least 0.
        generator: tosses the coins, a batch at a time, on its own device; None draws a fresh one.
        secure: toss the coins with the operating system's cryptographic source; refuses a generator.
    Returns:
        yields the indices of each batch, int64 `(|S|,)`, in order.
    Raises:
        ValueError: names the argument.
    Reference: Abadi 2016, arXiv 1607.00133, section 3.1, "lots"; Mironov 2019, arXiv 1908.10530, section 3.

    >>> [batch.tolist() for batch in poisson_batches(3, 1.0, 2)]
    [[0, 1, 2], [0, 1, 2]]
    """
    check_count("n", n)
    check_number("sampling_rate", sampling_rate, low=0, high=1, exclusive=True)
    check_count("steps", steps, low=0)
    device = generator.device if isinstance(generator, torch.Generator) else torch.device("cpu")
    check_source(secure, generator, device)
    generator = fresh_generator(generator, device)
    return (coins(n, sampling_rate, generator, secure).nonzero()[:, 0] for _ in range(steps))


def coins(n: int, q: float, generator: torch.Generator, secure: bool) -> Tensor:
    """Which of n examples take part, bool `(n,)`, from 53 random bits each."""
    if secure:
        bits = np.frombuffer(os.urandom(8 * n), dtype=np.uint64) >> np.uint64(11)
        return torch.from_numpy(bits * 2.0**-53 < q)
    return torch.rand(n, dtype=torch.float64, device=generator.device, generator=generator) < q


def dp_sgd(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    noise_multiplier: float,
    clip: float,
    sampling_rate: float,
    steps: int,
    learning_rate: float,
    momentum: float = 0.0,
    delta_dp: float,
    expected_batch: float | None = None,
    path: str = "fast",
    secure: bool = False,
    generator: torch.Generator | None = None,
    checkpoint: Path | None = None,
    diagnose: bool = False,
    progress: bool = True,
) -> PrivateHistory:
    r"""Private stochastic gradient descent (DP-SGD): trains a model in place, and says what its weights promise.

    $\theta_{t+1} = \theta_t - \eta \tilde g_t$, $\; \tilde g_t = \frac{1}{q n} \left( \sum_{i \in S_t} \min(1, C /
    \|g_i\|) \, g_i + N(0, \sigma^2 C^2 1) \right)$, with each i in $S_t$ with probability q.

    The guarantee is of one call, and covers the weights alone. Calls on the same data add up (`composed`). The time
    that the run took, and whether it ended in an error, depend on the data without any noise.

    Args:
        model: `(N, C, H, W)` in [0, 1] to logits `(N, K)`, one that `check_private` lets pass; frozen parameters stay,
            and it comes back in the mode in which it came. The weights that it starts from, frozen ones too, must not
            depend on `x` or `y`, or what they tell is not counted.
        x: inputs, floating point `(n, C, H, W)` in [0, 1], n at least 1.
        y: labels `(n,)`, int64.
        noise_multiplier: $\sigma$, the noise in units of C, at least 0; 0 clips alone and promises nothing.
        clip: C, the bound of each example's gradient in L2, above 0: the sensitivity of the sum when one example is
            added or removed. Infinity does not clip, and is accepted without noise alone.
        sampling_rate: q, above 0, at most 1.
        steps: how many, at least 1. An epoch is $1 / q$ steps; an empty batch is a step of noise alone.
        learning_rate: $\eta$, above 0.
        momentum: from 0 to 1, of what was released already, so it costs no privacy; as `torch.optim.SGD`.
        delta_dp: $\delta$, above 0 and below 1; less than $1 / n$ is usual.
        expected_batch: what each sum is divided by, a constant that nobody took from the data, above 0. None takes
            q n, and so tells n by the size of the noise: then a record is removed by counting its gradient as zero, and
            the guarantee says that the number of records is given.
        path: "fast" takes `fast_clipped_sum` where `is_fast` lets it, "vmap" always `per_example_gradients`.
        secure: coins and noise from the operating system's cryptographic source. Floating point is met by
            `add_secure_noise`: sum and noise are rounded to one grid, and the guarantee counts by how much that raises
            the sensitivity. Refuses a generator.
        generator: for a demonstration: draws the coins of a step, a seed for layers that draw, such as dropout, then
            the noise, in that order; on the device of `x`. None draws a fresh one, seeded by the operating system.
        checkpoint: a file that keeps the run about once an epoch. Where it exists, the run goes on from it; with a
            generator to the same weights as without the interruption. Without one, no state of the noise is kept, and
            the steps since the file was written are drawn anew: the guarantee counts those that are kept, so never
            release the weights that an interrupted call leaves in `model`.
        diagnose: look at what the guarantee does not cover, and return it too.
        progress: show a bar with the time left.
    Returns:
        the guarantee for one example added or removed, steps, and the time, which the guarantee does not cover.
    Raises:
        ValueError: names the argument; `checkpoint` too, if it belongs to another run.
        spai_lab.training.Diverged: a gradient became infinite or NaN; that it is raised is not covered either.
    Reference: Abadi 2016, arXiv 1607.00133, algorithm 1.
    Survey: private AI, differential privacy, gradient level.
    Simplified: one clipping norm for all layers, and no private PCA before the network.

    >>> x, y = torch.tensor([0.1, 0.2, 0.8, 0.9]).view(-1, 1, 1, 1), torch.tensor([0, 0, 1, 1])
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(1, 2))
    >>> settings = {"noise_multiplier": 2.0, "clip": 1.0, "sampling_rate": 0.5, "steps": 10, "learning_rate": 0.5}
    >>> print(dp_sgd(model, x, y, **settings, delta_dp=0.01, progress=False))
    10 steps, epsilon 2.33 at delta 0.01, one record added or removed; covers the weights after every step, given the
    number of records
    """
    check_training(model, x, y, clip, noise_multiplier, learning_rate, momentum, delta_dp)
    if expected_batch is not None:
        check_number("expected_batch", expected_batch, low=0, exclusive=True)
    check_run(sampling_rate, steps, path, secure, generator, checkpoint, diagnose, progress, x.device)
    covers = COVERED_OF_KNOWN if expected_batch is None else COVERED
    seeded = generator is not None
    expected_batch = sampling_rate * len(x) if expected_batch is None else expected_batch
    std = noise_multiplier * clip if noise_multiplier else 0.0
    fast = path == "fast" and is_fast(model, x)
    theta = trained_parameters(model)
    optimizer = torch.optim.SGD(theta.values(), lr=learning_rate, momentum=momentum)
    standing, run = Standing(model, steps), Run()
    kept = generator if seeded else torch.Generator()
    if checkpoint:
        settings = ["dp_sgd", noise_multiplier, clip, sampling_rate, steps, learning_rate, momentum, seeded]
        settings += [expected_batch, delta_dp, path, secure]
        settings.append(digest_tensors({"x": x, "y": y}))
        run = restore(checkpoint, settings, standing, optimizer, kept)
    generator = fresh_generator(generator, x.device)
    batches = poisson_batches(
        len(x), sampling_rate, steps - standing.taken, None if secure else generator, secure=secure
    )
    bar = tqdm(total=steps, initial=standing.taken, desc="private training", unit="step", disable=not progress)
    with bar, in_mode(model, training=True), gradients_of(theta):
        for batch in batches:
            start = time.perf_counter()
            with own_draws(generator):
                total, norms = summed(model, x[batch], y[batch], clip, fast)
            if not norms.isfinite().all():
                raise Diverged(
                    "A gradient became infinite or NaN: build the model again and train it with a lower learning_rate "
                    f"than {learning_rate:g}"
                )
            release = noised(total, std, expected_batch, secure, None if secure else generator)
            for name, parameter in theta.items():
                parameter.grad = release[name]
            optimizer.step()
            standing.note(len(batch), int((norms > clip).sum()))
            run.seconds += time.perf_counter() - start
            bar.update()
            if checkpoint and (standing.taken % math.ceil(1 / sampling_rate) == 0 or standing.taken == steps):
                save(checkpoint, settings, run, standing, optimizer, kept)
    if checkpoint:
        discard(checkpoint)
    size = sum(parameter.numel() for parameter in theta.values())
    sensitivity = clip + noise_grid(std) * math.sqrt(size) if secure and std else clip
    guarantee = guaranteed(sampling_rate, std / sensitivity, steps, delta_dp, covers)
    return PrivateHistory(guarantee, steps, run.seconds, seeded, standing.diagnostics() if diagnose else None)


def summed(model: nn.Module, x: Tensor, y: Tensor, clip: float, fast: bool) -> tuple[Gradients, Tensor]:
    """The sum of the clipped gradients of a batch, some examples at a time, and each one's length before."""
    if len(x) == 0:
        empty = {name: torch.zeros_like(parameter) for name, parameter in trained_parameters(model).items()}
        return empty, x.new_empty(0)
    parts = max(1, math.ceil(len(x) * numbers_written(model, fast) / ROOM))
    total, lengths = {}, []
    for x_part, y_part in zip(x.chunk(parts), y.chunk(parts), strict=True):
        if fast:
            part, norms = fast_clipped_sum(model, x_part, y_part, clip)
        else:
            gradients = per_example_gradients(model, x_part, y_part)
            part, norms = clipped_sum(gradients, clip), gradient_norms(gradients)
        total = {name: total[name] + part[name] for name in part} if total else part
        lengths.append(norms)
    return total, torch.cat(lengths)


def numbers_written(model: nn.Module, fast: bool) -> int:
    """How many numbers of an example's gradient are written down: on the fast path, none of linear layers' weights."""
    free = [layer.weight for layer in model.modules() if fast and isinstance(layer, nn.Linear)]
    return sum(p.numel() for p in trained_parameters(model).values()) - sum(p.numel() for p in free if p.requires_grad)


def guaranteed(
    sampling_rate: float, noise_multiplier: float, steps: int, delta_dp: float, covers: tuple[str, ...] = COVERED
) -> Guarantee:
    """What the accountant says; without noise, that nothing is promised."""
    if noise_multiplier == 0:
        return Guarantee(math.inf, delta_dp, ADD_REMOVE, covers)
    settings = {"sampling_rate": sampling_rate, "noise_multiplier": noise_multiplier, "steps": steps}
    return dp_sgd_guarantee(**settings, delta_dp=delta_dp, covers=covers)


class Standing(nn.Module):
    """Where a run stands, as tensors that a checkpoint holds: the model, the steps taken, what each step saw."""

    def __init__(self, model: nn.Module, steps: int) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        self.register_buffer("sizes", torch.zeros(steps, dtype=torch.int64))
        self.register_buffer("clipped", torch.zeros(steps, dtype=torch.int64))

    @property
    def taken(self) -> int:
        return int(self.step)

    def note(self, size: int, clipped: int) -> None:
        self.sizes[self.step], self.clipped[self.step] = size, clipped
        self.step += 1

    def diagnostics(self) -> Diagnostics:
        return Diagnostics(tuple(self.sizes.tolist()), tuple(self.clipped.tolist()))


@contextmanager
def gradients_of(theta: dict[str, nn.Parameter]) -> Iterator[None]:
    """Lend out the place of the parameters' gradients; afterwards each has its own again."""
    before = [parameter.grad for parameter in theta.values()]
    try:
        yield
    finally:
        for parameter, gradient in zip(theta.values(), before, strict=True):
            parameter.grad = gradient


@contextmanager
def own_draws(generator: torch.Generator) -> Iterator[None]:
    """What layers draw, such as dropout, starts from a seed of the run's own; the global random state comes back."""
    seed, state = torch.randint(2**62, (), generator=generator, device=generator.device), torch.get_rng_state()
    torch.default_generator.manual_seed(int(seed))
    try:
        yield
    finally:
        torch.set_rng_state(state)


# --- what can be trained ----------------------------------------------------------------------------------------------


def check_private(model: nn.Module, x: Tensor | None = None) -> None:
    r"""Raise `ValueError`, with the reason and a remedy, where a layer breaks what private training counts on.

    Clipping bounds what an example adds to a step only if $g_i$ depends on example i alone, and only what the noise
    covers may leave the step. Batch norm breaks both: each example is shifted and scaled by the batch's mean and
    variance, so that one example moves every other's gradient past its clipping, and its running averages keep
    statistics of the data without any noise. `nn.GroupNorm` normalizes each example by itself.

    Args:
        model: the model, as it would be trained.
        x: inputs `(N, C, H, W)`, of which the shape, dtype and device count: tries, on noise and a copy of the model,
            whether an unknown layer mixes examples or changes its buffers. None looks at the kinds of layers alone.
    Raises:
        ValueError: names the layer, why it is refused, and what to put in its place.
    Reference: Abadi 2016, arXiv 1607.00133, section 3 (per-example gradients); Opacus' `ModuleValidator` likewise.

    >>> check_private(nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8)))
    Traceback (most recent call last):
    ValueError: model has 1 (BatchNorm2d): batch norm shifts each example by the others' mean, so that clipping does
    not bound what one example changes, and keeps averages of the data without noise; accepted: nn.GroupNorm(8, 8)
    """
    if not isinstance(model, nn.Module):
        raise ValueError(f"model is {describe(model)}; accepted: a torch.nn.Module")
    for name, layer in model.named_modules():
        what = f"model has {name} ({type(layer).__name__})" if name else f"model is {type(layer).__name__}"
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            raise ValueError(
                f"{what}: batch norm shifts each example by the others' mean, so that clipping does not bound what one "
                f"example changes, and keeps averages of the data without noise; accepted: {in_place_of(layer)}"
            )
        if isinstance(layer, nn.modules.instancenorm._InstanceNorm) and layer.track_running_stats:
            raise ValueError(
                f"{what}: with track_running_stats=True it keeps averages of the data without noise; accepted: "
                "track_running_stats=False"
            )
    if x is not None:
        check_alone(model, x)


def in_place_of(layer: nn.Module) -> str:
    """A group norm for the channels of a batch norm, in at most 32 groups."""
    channels = layer.num_features
    return f"nn.GroupNorm({math.gcd(channels, 32)}, {channels})" if channels else "nn.GroupNorm"


def check_alone(model: nn.Module, x: Tensor) -> None:
    """Raise `ValueError` where, on noise, one example's answer or gradient depends on others, or a buffer changes.

    The others are noise, blank and full: a slope would not show what a layer detaches from the graph.
    """
    model = rehearsal(model)
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    noise = torch.rand(3, *x.shape[1:], generator=torch.Generator().manual_seed(0)).to(x)
    blank, full = (torch.cat([noise[:1], torch.full_like(noise[1:], value)]) for value in (0.0, 1.0))
    among_noise, *among_others = (of_the_first(model, batch) for batch in (noise, blank, full))
    pairs = [pair for others in among_others for pair in zip(among_noise, others, strict=True)]
    if any((other - first).norm() > 1e-4 * first.norm() for first, other in pairs):
        raise ValueError(
            "model mixes examples: its answer to one depends on another, so that clipping does not bound what one "
            "example changes; accepted: layers that treat each example by itself"
        )
    changed = [name for name, buffer in model.named_buffers() if not torch.equal(buffer, buffers[name])]
    if changed:
        raise ValueError(
            f"model changes its buffer {changed[0]} when it is trained, and no noise covers that; accepted: buffers "
            "that stay"
        )


def of_the_first(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """The logits of the first example of a batch, and the gradient of its loss, as one vector."""
    theta = list(trained_parameters(model).values())
    with same_draws(), torch.enable_grad():
        logits = model(x)[:1]
        loss = F.cross_entropy(logits, torch.zeros(1, dtype=torch.int64, device=logits.device))
        slopes = torch.autograd.grad(loss, theta, allow_unused=True, materialize_grads=True) if theta else [logits]
    return logits.detach(), torch.cat([slope.detach().flatten() for slope in slopes])


# --- bad arguments ----------------------------------------------------------------------------------------------------


def check_gradients(gradients: Gradients) -> None:
    """Raise `ValueError` unless `gradients` holds tensors of one number of examples, and finite ones."""
    if not isinstance(gradients, dict) or not gradients:
        raise ValueError(f"gradients is {describe(gradients)}; accepted: what per_example_gradients returns")
    for name, gradient in gradients.items():
        if not isinstance(gradient, Tensor) or not gradient.is_floating_point() or gradient.ndim == 0:
            raise ValueError(f"gradients[{name!r}] is {describe(gradient)}; accepted: floating point (N, ...)")
        if not gradient.isfinite().all():
            raise ValueError(f"gradients[{name!r}] has NaN or infinite values; accepted: finite numbers")
    sizes = {len(gradient) for gradient in gradients.values()}
    if len(sizes) > 1:
        raise ValueError(f"gradients are of {', '.join(map(str, sorted(sizes)))} examples; accepted: one number")


def check_training(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    clip: float,
    noise_multiplier: float,
    learning_rate: float,
    momentum: float,
    delta_dp: float,
) -> None:
    """Raise `ValueError` unless model and data fit and the settings of `dp_sgd` are in their ranges."""
    check_private(model)
    check_data(model, x, y, None, None)
    check_examples(model, x, y)
    check_private(model, x)
    check_clip(clip, noise_multiplier)
    if noise_multiplier:
        check_noise(noise_multiplier)
    check_number("learning_rate", learning_rate, low=0, exclusive=True)
    check_number("momentum", momentum, low=0, high=1)
    check_number("delta_dp", delta_dp, low=0, high=1, exclusive=True)


def check_run(
    sampling_rate: float,
    steps: int,
    path: str,
    secure: bool,
    generator: torch.Generator | None,
    checkpoint: Path | None,
    diagnose: bool,
    progress: bool,
    device: torch.device,
) -> None:
    """Raise `ValueError` unless what a run of `dp_sgd` needs is in its range."""
    check_number("sampling_rate", sampling_rate, low=0, high=1, exclusive=True)
    check_count("steps", steps)
    check_choice("path", path, ("fast", "vmap"))
    check_source(secure, generator, device)
    if checkpoint is not None and not isinstance(checkpoint, str | os.PathLike):
        raise ValueError(f"checkpoint is {describe(checkpoint)}; accepted: the path of a file")
    check_flag("diagnose", diagnose)
    check_flag("progress", progress)
