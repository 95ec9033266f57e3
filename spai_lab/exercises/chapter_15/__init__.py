"""Chapter 15: shares that come together again, a product and a gate of two parties, what leaks, what waiting costs."""

from spai_lab.exercises.chapter_15.gates import garbled_xor
from spai_lab.exercises.chapter_15.leaks import find_the_leak
from spai_lab.exercises.chapter_15.products import beaver_product
from spai_lab.exercises.chapter_15.rounds import count_rounds
from spai_lab.exercises.chapter_15.shamir import shamir_secret

EXERCISES = (shamir_secret, beaver_product, garbled_xor, find_the_leak, count_rounds)
