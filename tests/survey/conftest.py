"""What tests of the survey share: which functions a row really runs."""

import importlib
import inspect
import sys
import threading

import pytest


@pytest.fixture
def uncalled():
    """`uncalled(row, function)`: what it returns, and which of the row's registered functions ran in no thread."""

    def run(row, function):
        ran = set()

        def note(frame, event, argument):
            if event == "call":
                ran.add(frame.f_code)

        threading.setprofile(note)
        sys.setprofile(note)
        try:
            result = function()
        finally:
            sys.setprofile(None)
            threading.setprofile(None)
        return result, [name for name in row.functions if code_of(name) not in ran]

    return run


def code_of(name):
    """The code of a function that the taxonomy names."""
    module, function = name.split(":")
    return inspect.unwrap(getattr(importlib.import_module(module), function)).__code__
