"""Paired measurements against the libraries that users would pick instead; `python -m benchmarks` prints them."""
