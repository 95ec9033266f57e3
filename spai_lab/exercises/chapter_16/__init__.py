"""Chapter 16: the interval of a rate, a verdict on a published figure, and what no other method beats at everything."""

from spai_lab.exercises.chapter_16.fronts import undominated
from spai_lab.exercises.chapter_16.intervals import wilson
from spai_lab.exercises.chapter_16.verdicts import verdict

EXERCISES = (wilson, verdict, undominated)
