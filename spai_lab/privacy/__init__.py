"""Differential privacy: mechanisms, private training on three levels, accounting, auditing."""

from spai_lab.privacy.accounting import dp_sgd_guarantee, epsilon_of_rdp, noise_for, rdp_sampled_gaussian
from spai_lab.privacy.dp_audit import dp_audit
from spai_lab.privacy.dp_sgd import dp_sgd
from spai_lab.privacy.functional_mechanism import functional_mechanism
from spai_lab.privacy.mechanisms import (
    exponential_mechanism,
    gaussian_mechanism,
    laplace_mechanism,
    randomized_response,
)
from spai_lab.privacy.objective_perturbation import objective_perturbation
from spai_lab.privacy.pate import pate
from spai_lab.privacy.pate_votes import gnmax
from spai_lab.privacy.selective_sgd import selective_sgd

__all__ = [
    "dp_audit",
    "dp_sgd",
    "dp_sgd_guarantee",
    "epsilon_of_rdp",
    "exponential_mechanism",
    "functional_mechanism",
    "gaussian_mechanism",
    "gnmax",
    "laplace_mechanism",
    "noise_for",
    "objective_perturbation",
    "pate",
    "randomized_response",
    "rdp_sampled_gaussian",
    "selective_sgd",
]
