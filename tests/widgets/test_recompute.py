"""The button that computes again: it works once a click, and every end is said beside it."""

import pytest

from spai_lab.widgets.recompute import Recompute


def clicked(work):
    button = Recompute(work, "spai-lab measure", minutes=1)
    button.button.click()
    return button


def test_a_click_does_the_work_once_and_says_so():
    done = []
    button = clicked(lambda: done.append(1))
    assert done == [1]
    assert "Done" in button.status.value
    assert not button.button.disabled


def fail(error):
    def work():
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "said"), [(ValueError("no <data>"), "ValueError: no &lt;data&gt;"), (KeyboardInterrupt(), "Stopped")]
)
def test_a_failure_is_said_beside_the_button(error, said):
    button = clicked(fail(error))
    assert said in button.status.value
    assert not button.button.disabled


def test_a_stored_page_shows_the_command():
    forms, _ = clicked(lambda: None)._repr_mimebundle_()
    assert "spai-lab measure" in forms["text/html"]


def test_work_must_be_callable():
    with pytest.raises(ValueError, match="work is 3"):
        Recompute(3, "spai-lab measure", minutes=1)
