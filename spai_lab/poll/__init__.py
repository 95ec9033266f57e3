"""Polls on the predictions: what a class expected, counted in a lecture or from files that students hand in."""
