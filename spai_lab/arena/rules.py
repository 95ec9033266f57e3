"""The rules of the arena as a table: for each its name, what is said when it is broken, why it counts, what to do.

The last ones are no offenses: they say what should not be believed at once.
"""

from spai_lab.arena.findings import Rule

# --- a submission that does not run -----------------------------------------------------------------------------------

BROKEN = Rule(
    "broken",
    "The submission cannot be read: {message}.",
    "Nothing was run.",
    "Run the cell that defines your function, then submit it again.",
)
UNFINISHED = Rule(
    "not written yet",
    "It raises `NotImplementedError`.",
    "There is nothing to judge.",
    "Replace that line by your own code.",
)
UNFIT = Rule(
    "other parameters",
    "`{name}` cannot be called as `{name}({called})`: {message}.",
    "The arena knows no other way to call it.",
    "Name the parameters as in that call.",
)
CRASH = Rule(
    "crash",
    "It stops{where} with {error}: {message}.",
    "What crashes here would crash for everybody else.",
    "Try that line on four images in a cell of your own.",
)
DIED = Rule(
    "died",
    "Its process {how} before it answered.",
    "Only the process is gone: this notebook goes on.",
    "Look for `exit`, for too much memory, or for a library that gave up.",
)
SLOW = Rule(
    "slow",
    "It had {seconds:g} s {doing} and was not done.",
    "A class waits for nobody, so its process was ended, with all that it started.",
    "Do fewer steps, or work on all images at once.",
)
MEMORY = Rule(
    "memory",
    "It asked for more than the {megabytes:,} MB that it may use.",
    "One submission must not take the machine from the others.",
    "Work on fewer images at a time, and under `torch.no_grad()` where you need no gradient.",
)
GARBLED = Rule(
    "garbled",
    "What came back is not an answer: {message}.",
    "Only plain arrays are read, and nothing is ever unpickled, since that can run code.",
    "Leave the pipes alone and return a tensor.",
)

# --- a submission that goes where it should not -----------------------------------------------------------------------

OPENS_THE_DATA = Rule(
    "opens the data set",
    "It opens `{file}`, where the test images lie with their labels.",
    "Who looks the answers up shows nothing about the images.",
    "Use the images that the function is given, and nothing else.",
)
TOLD_LABELS = Rule(
    "prints what it should not know",
    "It prints the true labels of the images, {percent:.0f} % of them in their order.",
    "The arena never gave them to it, so it has found the images somewhere else.",
    "Use what the function is given, and nothing else.",
)
OUTLIVES = Rule(
    "leaves something running",
    "{count} of the processes that it started left its group, to go on when its time was up; they were ended.",
    "What goes on after the match takes the machine from the others.",
    "Do all the work within the function.",
)

# --- an attack that breaks the rules ----------------------------------------------------------------------------------

OTHER_KIND = Rule(
    "wrong result",
    "It returns {came}; accepted: {accepted}.",
    "Each image needs its own answer.",
    "Check shape and dtype of what you return; is a `return` missing?",
)
NOT_FINITE = Rule(
    "not finite",
    "It returns NaN or infinite pixels.",
    "A model's answer to those means nothing.",
    "Look for a division by zero, such as by the norm of a gradient of zero.",
)
OUT_OF_RANGE = Rule(
    "out of range",
    "It returns pixels from {low:.4g} to {high:.4g}.",
    "Images have pixels from 0 to 1; no camera delivers others.",
    "End with `.clamp(0, 1)`.",
)
OUTSIDE_THE_BALL = Rule(
    "outside the ball",
    "It moves {images} further than eps = {eps:g} in {norm}, one by {furthest:.4g}.",
    "With no limit anybody fools any model.",
    "Project after the last step: `project(x_adv, x, eps, norm)`, chapter 02.",
)
CHANGED_THE_MODEL = Rule(
    "changes the model",
    "After it ran, `{weight}` of its copy of the model is another.",
    "Who may change the model need not attack it. It gained nothing: results are judged on a model that it never "
    "touched.",
    "Work on `copy.deepcopy(model)`, or ask for gradients with `torch.autograd.grad`.",
)
OVER_BUDGET = Rule(
    "over budget",
    "It asks for more than {allowed:,} {what} an image.",
    "Attacks can be compared only at the same price.",
    "Count as you go, and return the best you have when the budget is spent.",
)

# --- a defense that breaks the rules ----------------------------------------------------------------------------------

NO_MODEL = Rule(
    "no model",
    "It returns {came}; accepted: a model, from images `(N, C, H, W)` to logits `(N, K)`.",
    "There is nothing to attack.",
    "Return the `nn.Module` itself.",
)
NO_LOGITS = Rule(
    "no logits",
    "Its answers do not fit: {message}.",
    "Attacks and judge read logits.",
    "Return finite scores `(N, K)`, before the softmax.",
)
CONSTANT = Rule(
    "constant",
    "It gives every image the same class.",
    "Nothing can turn it, and it is of no use.",
    "Look at its accuracy on clean images first.",
)
DEPENDS_ON_THE_BATCH = Rule(
    "depends on the batch",
    "{count} of {total} images are read otherwise when they come in another order, or alone.",
    "An image must stand by itself; who reads the whole batch reads the test.",
    "Look for statistics over the batch (`BatchNorm` in training mode, `x.mean(0)`), and call `eval()`.",
)
TWO_FACES = Rule(
    "two faces",
    "{count} of {total} images are read otherwise when their gradient will be asked for.",
    "Attacks would climb one model, and the judge would read another.",
    "Answer alike with and without gradients: do not look at `requires_grad` or `torch.is_grad_enabled()`.",
)
REMEMBERS = Rule(
    "remembers",
    "{count} of {total} {which} images get another answer {when}.",
    "A model that tires, or knows again what it saw clean, is not the model that was submitted.",
    "Keep no state between two calls.",
)
RECOGNIZES = Rule(
    "recognizes the images",
    "On the public test images it is right on {known}; on the same ones, moved a little in secret, on {new}.",
    "It answers from a list, not from what an image shows.",
    "Learn from the training images alone.",
)

# --- no offense, but a reason to doubt --------------------------------------------------------------------------------

GRADIENT_GONE = Rule(
    "masked gradient",
    "{count} of {total} images have no gradient at all.",
    "Attacks that climb it cannot move, which is no robustness (chapter 07).",
    "So the numbers to believe are those of Square, transfer and the stand-in.",
    fatal=False,
)
GRADIENT_MISLEADS = Rule(
    "misleading gradient",
    "A tiny step along the gradient raises the loss on {count} of {total} images only.",
    "A true gradient raises it nearly everywhere; this one is rugged, random or made up (chapter 07).",
    "So the numbers to believe are those of the attacks that do not climb it.",
    fatal=False,
)
BLIND_WINS = Rule(
    "blind beats seeing",
    "{attack} breaks {count} images that every attack on its gradient leaves standing.",
    "More knowledge should never hurt an attacker: the gradient is masked (chapter 07), or the attack too short.",
    "Take the smallest number as an upper bound of what an attacker would leave.",
    fatal=False,
)
RANDOMIZED = Rule(
    "randomized",
    "Two calls on the same images differ.",
    "That is allowed; each image is shown {draws} times, and stands if most answers are right.",
    "An attack that averages over your draws (EOT, chapter 03) was added.",
    fatal=False,
)
NOT_LIMITED = Rule(
    "not limited here",
    "This system does not {missing}.",
    "Time, images and answers are judged as everywhere.",
    "Where it matters, judge on Linux.",
    fatal=False,
)
