"""Attacks at training time: a few changed training inputs spoil the model, turn one image, or plant a backdoor."""

from spai_lab.attacks.poisoning.back_gradient import back_gradient
from spai_lab.attacks.poisoning.backdoors import badnets, blended, clean_label_backdoor
from spai_lab.attacks.poisoning.collision import convex_polytope, feature_collision
from spai_lab.attacks.poisoning.federated_backdoor import federated_backdoor
from spai_lab.attacks.poisoning.generative import generative_poisoning
from spai_lab.attacks.poisoning.hidden import hidden_trigger
from spai_lab.attacks.poisoning.influence import influence, influence_poison
from spai_lab.attacks.poisoning.label_flip import adversarial_label_flip, label_flip
from spai_lab.attacks.poisoning.matching import gradient_matching
from spai_lab.attacks.poisoning.svm import svm_poisoning
from spai_lab.attacks.poisoning.trojan import trojan

__all__ = [
    "adversarial_label_flip",
    "back_gradient",
    "badnets",
    "blended",
    "clean_label_backdoor",
    "convex_polytope",
    "feature_collision",
    "federated_backdoor",
    "generative_poisoning",
    "gradient_matching",
    "hidden_trigger",
    "influence",
    "influence_poison",
    "label_flip",
    "svm_poisoning",
    "trojan",
]
