"""From the images that stand to the headline of a defense against evasion: what `quick` and `full` share."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from spai_lab.metrics import Rate
from spai_lab.survey.headline import Headline

ROBUST = "accuracy under all of the attacks"
CERTIFIED = "certified accuracy"
EVADED = "attacked images neither detected nor rightly read"
NOT_ADAPTIVE = "no adaptive attack"  # the detail that says why


def survived(clean: Tensor, attacks: Mapping[str, Tensor]) -> Tensor:
    """Which images are read rightly as they are and after each attack, bool `(N,)`."""
    return torch.stack([clean, *attacks.values()]).all(0)


def count(mask: Tensor) -> list[int]:
    """How many, of how many."""
    return [int(mask.sum()), len(mask)]


def strongest(attacks: Mapping[str, Sequence[int]]) -> str:
    """The attack that leaves the smallest share; of equals the first.

    >>> strongest({"pgd": [3, 4], "square": [1, 4], "transfer": [1, 4]})
    'square'
    """
    return min(attacks, key=lambda name: attacks[name][0] / attacks[name][1])


def under_attack(clean: Tensor, attacks: Mapping[str, Tensor], undefended: Sequence[int]) -> dict:
    """The details of every defense.

    Args:
        clean: which images the defense gets right as they are, bool `(N,)`.
        attacks: by attack, which images it leaves right, bool `(N,)`.
        undefended: how many images the model without the defense gets right under all attacks, of how many.

    >>> under_attack(torch.tensor([True, True]), {"pgd": torch.tensor([True, False])}, [0, 2])["attacks"]
    {'pgd': [1, 2]}
    """
    left = {name: count(stands) for name, stands in attacks.items()}
    return {"clean": count(clean), "undefended": list(undefended), "attacks": left, "strongest": strongest(left)}


def robust_headline(
    clean: Tensor,
    attacks: Mapping[str, Tensor],
    undefended: Sequence[int],
    *,
    setup: str,
    budget: str,
    details: dict | None = None,
) -> Headline:
    """Of a defense whose promise is the right answer: an image counts if it survives every attack.

    Args:
        clean, attacks, undefended: as in `under_attack`.
        setup, budget: as in `Headline`.
        details: what else was measured.
    """
    found = under_attack(clean, attacks, undefended) | (details or {})
    rate = Rate(*count(survived(clean, attacks)))
    return Headline.of_rate(ROBUST, rate, setup=setup, budget=budget, better="higher", details=found)


def certified_headline(
    certified: Tensor,
    clean: Tensor,
    attacks: Mapping[str, Tensor],
    undefended: Sequence[int],
    *,
    setup: str,
    budget: str,
    details: dict | None = None,
) -> Headline:
    """Of a certificate: an image counts if it is proven to be read rightly, whatever the attack.

    The details say how many of the proven images an attack has turned all the same: none, if the proof is sound.

    Args:
        certified: which images are proven, bool `(N,)`.
        clean, attacks, undefended, setup, budget, details: as in `robust_headline`.
    """
    left = survived(clean, attacks)
    found = under_attack(clean, attacks, undefended)
    found |= {"survive all": count(left), "refuted": int((certified & ~left).sum())} | (details or {})
    rate = Rate(*count(certified))
    return Headline.of_rate(CERTIFIED, rate, setup=setup, budget=budget, better="higher", details=found)


def detector_headline(
    clean: Tensor,
    attacks: Mapping[str, Tensor],
    undefended: Sequence[int],
    *,
    alarms: Sequence[int],
    setup: str,
    budget: str,
    details: dict | None = None,
) -> Headline:
    """Of a detector: an image counts against it if some attack makes it pass and be misread.

    Args:
        clean: which clean images are passed and read rightly, bool `(N,)`.
        attacks: by attack, which images it leaves detected or read rightly, bool `(N,)`.
        undefended: as in `under_attack`.
        alarms: how many clean test images the detector rejects, of how many.
        setup, budget, details: as in `robust_headline`.
    """
    evaded = ~torch.stack(list(attacks.values())).all(0)
    found = under_attack(clean, attacks, undefended) | {"false alarms": list(alarms)} | (details or {})
    rate = Rate(*count(evaded))
    return Headline.of_rate(EVADED, rate, setup=setup, budget=budget, better="lower", details=found)
