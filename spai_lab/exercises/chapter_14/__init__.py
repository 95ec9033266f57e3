"""Chapter 14: sums and inner products of what nobody can read, and the levels that a computation takes."""

from spai_lab.exercises.chapter_14.activations import polynomial_relu
from spai_lab.exercises.chapter_14.chains import coefficient_chain
from spai_lab.exercises.chapter_14.products import out_of_levels
from spai_lab.exercises.chapter_14.rotations import inner_product
from spai_lab.exercises.chapter_14.salaries import encrypted_salaries

EXERCISES = (encrypted_salaries, coefficient_chain, polynomial_relu, inner_product, out_of_levels)
