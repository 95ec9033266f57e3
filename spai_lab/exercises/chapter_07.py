"""Chapter 07: a way through thermometer encoding, and two signs that a gradient is masked."""

import numpy as np
import torch
from torch import Tensor

from spai_lab.checks import describe
from spai_lab.exercises.exercise import Exercise, Fault, call

CHAPTER = "07_gradient_masking"
LEVELS = (4, 10, 16)


# --- bpda_thermometer


def my_bpda_thermometer(x, levels):
    """The thermometer code of gray images, with the gradient of a stand-in.

    x: images (N, 1, H, W) in [0, 1], on which PyTorch records.
    levels: l, the number of thresholds; threshold k is k / l, k = 0 to l - 1.
    Returns codes (N, l, H, W), 0 or 1, through which a gradient comes back.
    """
    k = torch.arange(levels).view(-1, 1, 1)
    code = (x > k / levels).to(x.dtype)
    stand_in = (levels * x - k).clamp(0, 1)
    return stand_in + (code - stand_in).detach()


def code_of(x: Tensor, levels: int) -> Tensor:
    """The code itself, from which no gradient comes."""
    return my_bpda_thermometer(x, levels).detach()


def thresholds(levels: int) -> Tensor:
    """The numbers k of the thresholds, to meet a batch of images."""
    return torch.arange(levels).view(-1, 1, 1)


def returns_the_code(x, levels):
    """The bits are right, but no gradient comes back: a comparison has none. Give them that of the stand-in."""
    return code_of(x, levels)


def returns_the_stand_in(x, levels):
    """It answers with the stand-in; forward, the network has to see the code itself, or you attack another model."""
    return (levels * x - thresholds(levels)).clamp(0, 1)


def swaps_the_roles(x, levels):
    """The roles are swapped: the stand-in answers, and the code, which has no gradient, goes backward."""
    return returns_the_stand_in(x, levels).detach()


def adds_both(x, levels):
    """It adds code and stand-in; take the stand-in's value away again, detached, so that only its gradient stays."""
    return code_of(x, levels) + returns_the_stand_in(x, levels)


def lets_the_gradient_pass(x, levels):
    """It lets the gradient pass unchanged, as if each bit were the pixel; the stand-in of one bit alone has a slope."""
    return x + (code_of(x, levels) - x).detach()


def forgets_the_clamp(x, levels):
    """Its stand-in is not clamped, so that thresholds far from the pixel pull at it as hard as the one next below."""
    slope = levels * x - thresholds(levels)
    return slope + (code_of(x, levels) - slope).detach()


def forgets_the_factor(x, levels):
    """Its stand-in clamps x - k / l: slope 1, and for every threshold below the pixel. Clamp l x - k, as asked."""
    slope = (x - thresholds(levels) / levels).clamp(0, 1)
    return slope + (code_of(x, levels) - slope).detach()


def counts_from_one(x, levels):
    """Its thresholds run from 1 / l to 1, and no pixel is above 1; they run from 0 to (l - 1) / l."""
    k = thresholds(levels) + 1
    code, stand_in = (x > k / levels).to(x.dtype), (levels * x - k).clamp(0, 1)
    return stand_in + (code - stand_in).detach()


def between_the_thresholds(seed: int = 17) -> list[dict]:
    """Pixels that are on no threshold, and a gradient that arrives at their codes."""
    generator = torch.Generator().manual_seed(seed)
    cases = []
    for levels in LEVELS:
        level = torch.randint(levels, (3, 1, 3, 3), generator=generator)
        within = 0.1 + 0.8 * torch.rand(level.shape, generator=generator)
        arriving = torch.randn(3, levels, 3, 3, generator=generator)
        cases.append({"x": (level + within) / levels, "levels": levels, "arriving": arriving})
    return cases


def code_and_gradient(answer, x, levels, arriving) -> Tensor | None:
    """The answer's codes and, as one more channel, the gradient that comes back to the pixels; zero if none does.

    Raises:
        Fault: there are no codes, or not one for each threshold.
    """
    pixels = x.clone().requires_grad_()
    codes = call(answer, x=pixels, levels=levels)
    if codes is None:
        return None
    if not isinstance(codes, Tensor) or codes.shape != arriving.shape:
        raise Fault(f"It returns {describe(codes)}; expected bits of shape {tuple(arriving.shape)}.")
    gradient = None
    if codes.requires_grad:
        (gradient,) = torch.autograd.grad(codes, pixels, arriving.to(codes.dtype), allow_unused=True)
    gradient = torch.zeros_like(x) if gradient is None else gradient
    return torch.cat([codes.detach().to(x.dtype), gradient], dim=1)


def pixel_by_pixel(x, levels, arriving) -> np.ndarray:
    """A pixel at level j has the codes 0 to j, and only the stand-in of threshold j is between 0 and 1."""
    x, arriving = x.double().numpy(), arriving.double().numpy()
    result = np.zeros((len(x), levels + 1, *x.shape[2:]))
    for n, _, h, w in np.ndindex(x.shape):
        level = int(x[n, 0, h, w] * levels)
        result[n, : level + 1, h, w] = 1
        result[n, levels, h, w] = levels * arriving[n, level, h, w]
    return result


def wrong_way(result: np.ndarray, x, levels, arriving) -> str:
    """What stands out: a wrong code going forward, or a wrong gradient coming back."""
    truth = pixel_by_pixel(x, levels, arriving)
    n, channel, h, w = np.unravel_index(np.abs(result - truth)[:, :-1].argmax(), truth[:, :-1].shape)
    pixel, given, right = x[n, 0, h, w].item(), result[n, channel, h, w], truth[n, channel, h, w]
    if abs(given - right) > 1e-4:
        return (
            f"Forward, bit {channel} of a pixel {pixel:.3f} is {given:.3g}; expected {right:.0f} (levels = {levels})."
        )
    if not result[:, -1].any():
        return "The bits are right, but the gradient that comes back is zero everywhere."
    n, h, w = np.unravel_index(np.abs(result - truth)[:, -1].argmax(), truth[:, -1].shape)
    pixel, given, right = x[n, 0, h, w].item(), result[n, -1, h, w], truth[n, -1, h, w]
    return (
        f"The bits are right. Backward, a pixel {pixel:.3f} gets the gradient {given:.3g} where the stand-in gives "
        f"{right:.3g} (levels = {levels})."
    )


bpda_thermometer = Exercise(
    chapter=CHAPTER,
    task=r"""
        **Through the thermometer.** Thermometer encoding replaces a pixel $x$ by $l$ bits, $\tau_k(x) = 1$ if
        $x > k / l$ and 0 otherwise, for $k = 0, \dots, l - 1$. Bits have no gradient, so an attack that needs one is
        stuck. BPDA answers with a stand-in that rises where the bit jumps:

        $$\text{forward: } \tau_k(x), \qquad
        \text{backward: } \nabla_x \hat\tau_k(x), \quad \hat\tau_k(x) = \mathrm{clip}_{[0, 1]}(l x - k).$$

        Write `my_bpda_thermometer(x, levels)`: it returns exactly the bits, and the gradient that comes back is that
        of the stand-in.
    """,
    solution=my_bpda_thermometer,
    truth=pixel_by_pixel,
    cases=between_the_thresholds,
    tested=f"bits and gradient at {', '.join(map(str, LEVELS[:-1]))} and {LEVELS[-1]} levels, pixel by pixel",
    hints=(
        "`torch.arange(levels).view(-1, 1, 1)` meets `x` of shape `(N, 1, H, W)` and gives `(N, l, H, W)`.",
        "Compute both: the bits by a comparison, made into numbers, and the stand-in by a `clamp`.",
        "What `.detach()` returns counts as a constant on the way back. Which constant, added to the stand-in, makes "
        "its value that of the bits?",
    ),
    mistakes=(
        returns_the_code,
        returns_the_stand_in,
        swaps_the_roles,
        adds_both,
        lets_the_gradient_pass,
        forgets_the_clamp,
        forgets_the_factor,
        counts_from_one,
    ),
    call=code_and_gradient,
    look=wrong_way,
    tolerance=1e-4,
)


# --- zero_gradient_share


def my_zero_gradient_share(gradients):
    """The share of images at which a gradient attack cannot move.

    gradients: of the loss with respect to the images, (N, C, H, W).
    Returns a number from 0 to 1: the share whose gradient is exactly zero.
    """
    stuck = (gradients == 0).flatten(1).all(dim=1)
    return stuck.double().mean().item()


def counts_pixels(gradients):
    """That is the share of pixels with a zero; an attack is stuck only where all pixels of an image have one."""
    return (gradients == 0).double().mean().item()


def asks_for_any_pixel(gradients):
    """It counts images in which any pixel has a zero gradient, such as a corner; all pixels have to."""
    return (gradients == 0).flatten(1).any(dim=1).double().mean().item()


def sums_the_pixels(gradients):
    """It asks whether the sum is zero, where positive and negative entries cancel."""
    return (gradients.flatten(1).sum(1) == 0).double().mean().item()


def takes_the_largest(gradients):
    """It asks whether the largest entry is zero; entries below zero move the attack too."""
    return (gradients.flatten(1).amax(1) == 0).double().mean().item()


def calls_small_zero(gradients):
    """It takes a small gradient for zero; the sign of 1e-30 is 1, and FGSM makes a full step of it."""
    return (gradients.flatten(1).abs().amax(1) < 1e-8).double().mean().item()


def squares_the_entries(gradients):
    """It squares the entries, and in float32 the square of 1e-30 is zero: compare the entries themselves."""
    return (gradients.flatten(1).square().sum(1) == 0).double().mean().item()


def counts_the_others(gradients):
    """That is the share of images with a gradient; count those without."""
    return 1 - my_zero_gradient_share(gradients)


def masked_gradients() -> list[dict]:
    """Gradients of every kind: zero, zero in a corner, canceling, negative, tiny."""
    generator = torch.Generator().manual_seed(18)
    zero, pattern = torch.zeros(1, 4, 4), torch.randn(1, 4, 4, generator=generator)
    corner, canceling, single = pattern.clone(), torch.ones(1, 4, 4), zero.clone()
    corner[:, :2, :2] = 0
    canceling[:, ::2] = -1
    single[0, 3, 1] = -2.0
    tiny, small = 1e-30 * pattern, 1e-12 * pattern
    mixtures = (
        [zero, pattern, corner, zero, canceling, single, single, tiny, zero, small, -pattern.abs()],
        [pattern, corner, tiny, corner, pattern],
        [zero, -zero, zero],
    )
    return [{"gradients": torch.stack(mixture)} for mixture in mixtures]


def image_by_image(gradients) -> float:
    return sum(not np.any(gradient) for gradient in gradients.numpy()) / len(gradients)


def not_a_share(result: np.ndarray, **case: object) -> str | None:
    """What stands out in a share that is none."""
    return None if 0 <= result <= 1 else f"It returns {result:.4g}; a share runs from 0 to 1."


zero_gradient_share = Exercise(
    chapter=CHAPTER,
    task=r"""
        **Where the attack stands still.** Where the gradient is exactly zero, FGSM and PGD take no step, and the image
        survives without any defense of the boundary. Look before you believe in robustness: write
        `my_zero_gradient_share(gradients)`, the share of the $N$ images whose gradient is exactly zero in *all*
        pixels.
    """,
    solution=my_zero_gradient_share,
    truth=image_by_image,
    cases=masked_gradients,
    tested="19 gradients: zero, zero in a corner, canceling, negative, and as small as 1e-30",
    hints=(
        "`gradients == 0` answers for each entry. What has to hold for all entries of one image?",
        "`.flatten(1)` puts the pixels of an image into one dimension, and `.all(dim=1)` leaves one answer an image.",
        "The share is the mean of the answers, as numbers: `.double().mean()`.",
    ),
    mistakes=(
        counts_pixels,
        asks_for_any_pixel,
        sums_the_pixels,
        takes_the_largest,
        calls_small_zero,
        squares_the_entries,
        counts_the_others,
    ),
    look=not_a_share,
)


# --- black_box_better


def my_black_box_better(robust_white, robust_black):
    """The share of images that only the black-box attack broke.

    robust_white: which images survive the white-box attack, bool (N,).
    robust_black: which of the same images survive the black-box attack.
    Returns a number from 0 to 1, a share of all N images.
    """
    return (robust_white & ~robust_black).double().mean().item()


def subtracts_the_rates(robust_white, robust_black):
    """It subtracts two rates, so that images broken by the white-box attack alone cancel others; go image by image."""
    return (robust_white.double().mean() - robust_black.double().mean()).item()


def turns_them_around(robust_white, robust_black):
    """That is the share only the white-box attack broke, which is as it should be; look for the reverse."""
    return my_black_box_better(robust_black, robust_white)


def counts_both_ways(robust_white, robust_black):
    """It counts every image on which the attacks differ; only those that the white-box attack missed are suspicious."""
    return (robust_white ^ robust_black).double().mean().item()


def counts_what_both_broke(robust_white, robust_black):
    """It counts all that the black-box attack broke; leave out what the white-box attack broke as well."""
    return (~robust_black).double().mean().item()


def divides_by_the_survivors(robust_white, robust_black):
    """It divides by the survivors of the white-box attack; the share asked for is of all images."""
    return my_black_box_better(robust_white, robust_black) / max(robust_white.double().mean().item(), 1e-12)


def divides_by_the_broken(robust_white, robust_black):
    """It divides by what the black-box attack broke; the share asked for is of all images."""
    return my_black_box_better(robust_white, robust_black) / max(1 - robust_black.double().mean().item(), 1e-12)


SURVIVORS = (  # what survives the white-box attack, and the black-box attack
    ("1111011100", "1010011000"),
    ("11000011", "11110001"),
    ("100110", "100110"),
    ("11111", "00000"),
)


def survivors() -> list[dict]:
    names = ("robust_white", "robust_black")
    return [
        {name: torch.tensor([bit == "1" for bit in bits]) for name, bits in zip(names, pair, strict=True)}
        for pair in SURVIVORS
    ]


def counted(robust_white, robust_black) -> float:
    pairs = list(zip(robust_white.tolist(), robust_black.tolist(), strict=True))
    return pairs.count((True, False)) / len(pairs)


black_box_better = Exercise(
    chapter=CHAPTER,
    task=r"""
        **The weaker attacker wins.** Whoever sees the gradient can do whatever somebody can who only sees answers. If
        a black-box attack breaks an image that the white-box attack left whole, the gradient misled the latter. Write
        `my_black_box_better(robust_white, robust_black)`: of all $N$ images, the share that survives the white-box
        attack and not the black-box attack.
    """,
    solution=my_black_box_better,
    truth=counted,
    cases=survivors,
    tested="5 to 10 images: some broken by either attack alone, the same by both, and all by the black-box one only",
    hints=(
        "Two equal rates may hide it: each attack may break images that the other one cannot. Compare image by image.",
        "For masks of True and False, `&` is *and*, `~` is *not*.",
    ),
    mistakes=(
        subtracts_the_rates,
        turns_them_around,
        counts_both_ways,
        counts_what_both_broke,
        divides_by_the_survivors,
        divides_by_the_broken,
    ),
    look=not_a_share,
)

EXERCISES = (bpda_thermometer, zero_gradient_share, black_box_better)
