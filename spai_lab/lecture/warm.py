"""What a lecture's kernel imports before anybody asks: the stage, and what most chapters import beside it."""

import spai_lab.exercises
import spai_lab.figures
import spai_lab.lecture.stage
import spai_lab.metrics
import spai_lab.training  # noqa: F401
