"""Defenses against evasion in seconds: the rows of the taxonomy, each with the function that measures it on digits."""

from collections.abc import Callable

from spai_lab.survey import quick_certificates, quick_detectors, quick_masking, quick_training
from spai_lab.survey.headline import Headline

QUICK: dict[str, Callable[[int], Headline]] = {
    **quick_masking.QUICK,
    **quick_training.QUICK,
    **quick_certificates.QUICK,
    **quick_detectors.QUICK,
}
