"""Chapter 13: answers that may be seen and what many of them cost, steps, teachers, and what an audit may claim."""

from spai_lab.exercises.chapter_13.answers import estimated_share, laplace_scale
from spai_lab.exercises.chapter_13.audits import lowest_epsilon
from spai_lab.exercises.chapter_13.gradients import noisy_gradient
from spai_lab.exercises.chapter_13.microbatches import counterexample
from spai_lab.exercises.chapter_13.spending import epsilon_of_queries
from spai_lab.exercises.chapter_13.voting import teachers

EXERCISES = (
    *(estimated_share, laplace_scale, epsilon_of_queries),
    *(noisy_gradient, counterexample, teachers, lowest_epsilon),
)
