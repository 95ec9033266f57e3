"""Assignments: the exercises as a course that nbgrader grades, with tests that students do not have.

The lecturer's commands, in a folder of the lecturer's own (`pip install spai-lab[assignments]` brings nbgrader):

    spai-lab assignments export COURSE --chapters 02
    cd COURSE && nbgrader generate_assignment 02_gradient_attacks    # release/: what students get
    nbgrader autograde 02_gradient_attacks && nbgrader export        # of what lies in submitted/; grades.csv

`spai-lab assignments look COURSE` then lists the submitted cells that read the package's answers.

What is defended: an answer that knows the visible results by heart, an empty one and a typical mistake get no points,
since each is tried on inputs drawn under the lecturer's seed, which no student's copy holds. What is not: students have
the package, and with it a right answer to each exercise; an answer runs in the kernel that grades it, and might tamper
with the judge. No autograder of notebooks can prevent this; `look`, and a line below the points, say where somebody
reads what answers do not need. And nbgrader's feedback pages show the graded cells with the seeds of their inputs, from
which neither the lecturer's seed nor those of other exercises follow: export under another seed for the next course.
"""
