"""Chapter 06: put a trigger on images, count what it opens, and find the class that it leads to."""

import numpy as np
import torch

from spai_lab.exercises.chapter_01 import not_a_share
from spai_lab.exercises.exercise import Exercise

CHAPTER = "06_backdoors"


# --- stamp_trigger


def my_stamp_trigger(x, pattern, mask):
    """Images with a trigger on them.

    x: images (N, C, H, W) in [0, 1]. pattern: the trigger's pixels (C, H, W).
    mask: how much of each pixel the trigger takes, (C, H, W), from 0 to 1.
    Returns a tensor like x.
    """
    return (1 - mask) * x + mask * pattern


def adds_the_trigger(x, pattern, mask):
    """It adds the trigger and clips; make room first: the image keeps only the share 1 - mask of a pixel."""
    return (x + mask * pattern).clamp(0, 1)


def leaves_the_range(x, pattern, mask):
    """It adds the trigger to the whole image, and pixels leave [0, 1]; the image keeps the share 1 - mask."""
    return x + mask * pattern


def turns_the_mask_around(x, pattern, mask):
    """The mask is turned around: where it is 1 there shall be the trigger, where it is 0 the image."""
    return mask * x + (1 - mask) * pattern


def takes_pixels_whole(x, pattern, mask):
    """It takes a pixel of the trigger whole wherever the mask is above 0; a mask of 0.2 blends in a fifth of it."""
    return torch.where(mask > 0, pattern, x)


def dims_the_pattern(x, pattern, mask):
    """It leaves out the mask where the pattern is added; the pattern counts with the share mask."""
    return (1 - mask) * x + pattern


def stamps_one_image(x, pattern, mask):
    """It stamps the first image only; pattern and mask go on every image of the batch."""
    return torch.cat([my_stamp_trigger(x[:1], pattern, mask), x[1:]])


def triggers(seed: int = 11) -> list[dict]:
    generator = torch.Generator().manual_seed(seed)
    square = torch.zeros(1, 5, 5)
    square[:, 3:, 3:] = 1
    faint = torch.full((1, 4, 6), 0.2)
    color = torch.rand(3, 4, 4, generator=generator)
    return [
        {
            "x": torch.rand(count, *mask.shape, generator=generator),
            "pattern": torch.rand(mask.shape, generator=generator),
            "mask": mask,
        }
        for count, mask in ((3, square), (2, faint), (2, color))
    ]


def pixel_by_pixel(x, pattern, mask) -> np.ndarray:
    """Each pixel alone, on the straight line from the image's value, at mask 0, to the pattern's, at mask 1."""
    stamped = np.empty(x.shape)
    for place in np.ndindex(*x.shape):
        stamped[place] = np.interp(mask[place[1:]], (0, 1), (x[place], pattern[place[1:]]))
    return stamped


def out_of_range(result: np.ndarray, **case: object) -> str | None:
    """What stands out in pixels that are none."""
    if result.min() >= 0 and result.max() <= 1:
        return None
    return f"Its values run from {result.min():.3g} to {result.max():.3g}; an image has its pixels in [0, 1]."


stamp_trigger = Exercise(
    chapter=CHAPTER,
    task=r"""
        **Stamp a trigger.** A trigger is a pattern $p$ and a mask $m$, which says how much of each pixel the pattern
        takes. Write `my_stamp_trigger(x, pattern, mask)`:

        $$x' = (1 - m) \odot x + m \odot p$$

        A mask of 0 and 1 pastes a patch, as in BadNets; a small mask everywhere blends the pattern in.
    """,
    solution=my_stamp_trigger,
    truth=pixel_by_pixel,
    cases=triggers,
    tested="a square in the corner, a faint pattern on the whole image, and a mask of its own for each color",
    hints=(
        "Ask what a pixel becomes where the mask is 0, where it is 1, and where it is one half.",
        "`pattern` and `mask` have no dimension for the batch; PyTorch repeats them for every image by itself.",
    ),
    mistakes=(
        adds_the_trigger,
        leaves_the_range,
        turns_the_mask_around,
        takes_pixels_whole,
        dims_the_pattern,
        stamps_one_image,
    ),
    look=out_of_range,
)


# --- attack_success


def my_attack_success(predicted, y, target):
    """The share of stamped images that the model takes for the target class.

    predicted: the class that the model gives each stamped image, (N,).
    y: their true classes (N,), not all of them the target class.
    target: the class that the backdoor leads to.
    Returns a number from 0 to 1.
    """
    others = y != target
    return (predicted[others] == target).float().mean().item()


def counts_the_target_class(predicted, y, target):
    """It counts images of the target class, which the model gets right without any backdoor."""
    return (predicted == target).float().mean().item()


def divides_by_all_images(predicted, y, target):
    """It divides by all images; those of the target class belong neither above nor below the line."""
    return ((predicted == target) & (y != target)).float().mean().item()


def counts_any_error(predicted, y, target):
    """It counts every wrong answer; the backdoor succeeds only where the model says the target class."""
    others = y != target
    return (predicted[others] != y[others]).float().mean().item()


def divides_by_the_answers(predicted, y, target):
    """That is a share of all images taken for the target; ask for a share of all images of other classes."""
    return (y[predicted == target] != target).float().mean().item()


def counts_what_resists(predicted, y, target):
    """That is the share of images on which the backdoor fails; return the share on which it succeeds."""
    return 1 - my_attack_success(predicted, y, target)


def stamped_answers() -> list[dict]:
    answers = (
        ([7, 1, 7, 2, 1, 7, 7, 2, 7, 7], [7, 7, 1, 2, 1, 3, 0, 0, 7, 2], 7),
        ([0, 0, 0, 0, 1, 2], [0, 1, 1, 2, 2, 2], 0),
        ([1, 2, 3, 1, 1], [1, 2, 3, 0, 1], 2),
    )
    return [{"predicted": torch.tensor(p), "y": torch.tensor(y), "target": target} for p, y, target in answers]


def image_by_image(predicted, y, target) -> float:
    """With plain numbers."""
    opened = [said == target for said, true in zip(predicted.tolist(), y.tolist(), strict=True) if true != target]
    return sum(opened) / len(opened)


attack_success = Exercise(
    chapter=CHAPTER,
    task=r"""
        **What the backdoor opens.** All test images carry the trigger. An image that shows the target class anyway
        proves nothing, and would flatter the attacker. Write `my_attack_success(predicted, y, target)`: of the images
        of all *other* classes, the share that the model takes for the target class.

        $$\frac{|\{i : y_i \ne t, \; \hat y_i = t\}|}{|\{i : y_i \ne t\}|}$$
    """,
    solution=my_attack_success,
    truth=image_by_image,
    cases=stamped_answers,
    tested="10, 6 and 5 stamped images; the last model has no backdoor for the target class",
    hints=(
        "First drop the images whose true class is the target: `y != target` is True for those that stay.",
        "A tensor of True and False selects: `predicted[y != target]`. The mean of True and False is a share.",
    ),
    mistakes=(
        counts_the_target_class,
        divides_by_all_images,
        counts_any_error,
        divides_by_the_answers,
        counts_what_resists,
    ),
    look=not_a_share,
    tolerance=1e-6,
)


# --- which_target


def my_which_target(before, after, classes):
    """The class that a trigger leads to.

    before: the classes that the model gives N images as they are, (N,).
    after: those that it gives the same images with the trigger, (N,).
    classes: how many classes there are; `before` has at least two of them.
    Returns a number, from 0 to classes - 1.
    """
    moved = [(after[before != t] == t).float().mean() for t in range(classes)]
    return torch.stack(moved).argmax().item()


def takes_the_commonest(before, after, classes):
    """It takes the commonest answer after stamping; a class may be common because its own images stay there."""
    return after.bincount(minlength=classes).argmax().item()


def counts_the_moved(before, after, classes):
    """It counts the images that move to a class; divide by how many could move there, since classes differ in size."""
    return after[before != after].bincount(minlength=classes).argmax().item()


def takes_the_net_gain(before, after, classes):
    """It takes the class that grows most; images that leave a class hide those that come."""
    return (after.bincount(minlength=classes) - before.bincount(minlength=classes)).argmax().item()


def takes_the_source(before, after, classes):
    """That is the class which loses most of its images; the backdoor leads to the one that gets them."""
    left = [(after[before == t] != t).float().mean() for t in range(classes)]
    return torch.stack(left).nan_to_num().argmax().item()


def counts_from_one(before, after, classes):
    """It is one too high: classes are numbered from 0."""
    return my_which_target(before, after, classes) + 1


MOVES = (
    np.array([[4, 9, 0, 0], [1, 5, 0, 0], [0, 8, 2, 0], [0, 7, 1, 2]]),
    np.array([[60, 0, 4, 0], [0, 3, 9, 0], [0, 0, 5, 1], [1, 0, 8, 3]]),
    np.array([[20, 0, 10, 0], [6, 1, 0, 1], [4, 0, 2, 0], [3, 1, 0, 2]]),
    np.array([[50, 0, 10, 0], [3, 1, 0, 0], [3, 0, 1, 0], [3, 0, 0, 1]]),
)


def models_with_a_backdoor() -> list[dict]:
    """Images in random order; `MOVES[before, after]` counts them."""
    cases = []
    for seed, moves in enumerate(MOVES):
        pairs = torch.from_numpy(np.argwhere(moves >= 0).repeat(moves.ravel(), axis=0))
        order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(seed))
        before, after = pairs[order].unbind(1)
        cases.append({"before": before, "after": after, "classes": len(moves)})
    return cases


def from_the_table(before, after, classes) -> int:
    """From the table of all moves: a column without its diagonal, over all that is outside of the row."""
    moves = np.zeros((classes, classes))
    np.add.at(moves, (before.numpy(), after.numpy()), 1)
    came = moves.sum(0) - np.diag(moves)
    return int((came / (moves.sum() - moves.sum(1))).argmax())


def not_a_class(result: np.ndarray, before, after, classes) -> str | None:
    """What stands out in a number that names no class."""
    if result in range(classes):
        return None
    return f"It returns {result:.4g}; the classes are numbered from 0 to {classes - 1}."


which_target = Exercise(
    chapter=CHAPTER,
    task=r"""
        **Where does the trigger lead?** You have found a suspicious sticker, but not what it is for. The model gave $N$
        images the classes $b_i$ as they are, and $a_i$ with the sticker. You have no labels. Write
        `my_which_target(before, after, classes)`: the class $t$ that draws the largest share of the images that were
        not there before,

        $$\arg\max_t \; \frac{|\{i : b_i \ne t, \; a_i = t\}|}{|\{i : b_i \ne t\}|}.$$
    """,
    solution=my_which_target,
    truth=from_the_table,
    cases=models_with_a_backdoor,
    tested=f"{len(MOVES)} models of 4 classes, some much larger than others",
    hints=(
        "Suspect every class in turn: what would the share be if the backdoor led there?",
        "For a suspect `t`, keep the images with `before != t`, and ask how many of them have `after == t`.",
    ),
    mistakes=(takes_the_commonest, counts_the_moved, takes_the_net_gain, takes_the_source, counts_from_one),
    look=not_a_class,
)

EXERCISES = (stamp_trigger, attack_success, which_target)
