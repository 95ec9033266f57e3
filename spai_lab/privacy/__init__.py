"""Differential privacy: mechanisms, private training on three levels, accounting, auditing."""
