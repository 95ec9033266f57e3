"""Attacks on privacy: what a user, a silo or a provider can learn of the data that a model was trained on."""
