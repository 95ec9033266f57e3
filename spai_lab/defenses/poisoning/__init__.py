"""Defenses at training time: clean the data, train insensitively, repair the model, watch its inputs.

None of them sees which inputs are poison.
"""

from spai_lab.defenses.poisoning.aggregation import coordinate_median, krum, multi_krum, trimmed_mean
from spai_lab.defenses.poisoning.fine_pruning import fine_pruning
from spai_lab.defenses.poisoning.latent import activation_clustering, spectral_signatures
from spai_lab.defenses.poisoning.neural_cleanse import neural_cleanse
from spai_lab.defenses.poisoning.partition import partition_aggregation
from spai_lab.defenses.poisoning.roni import knn_relabel, roni
from spai_lab.defenses.poisoning.sphere_slab import poisoning_bound, sphere_slab
from spai_lab.defenses.poisoning.strip import strip

__all__ = [
    "activation_clustering",
    "coordinate_median",
    "fine_pruning",
    "knn_relabel",
    "krum",
    "multi_krum",
    "neural_cleanse",
    "partition_aggregation",
    "poisoning_bound",
    "roni",
    "spectral_signatures",
    "sphere_slab",
    "strip",
    "trimmed_mean",
]
