"""Chapter 17: an attack that keeps to its budget, a randomized defense, and a table that tells of masked gradients."""

from spai_lab.exercises.chapter_17.budgets import few_queries
from spai_lab.exercises.chapter_17.draws import noisy_mean
from spai_lab.exercises.chapter_17.masks import masking_signs

EXERCISES = (few_queries, noisy_mean, masking_signs)
