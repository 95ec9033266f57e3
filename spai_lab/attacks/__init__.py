"""Attacks of the survey, by what they are after: evasion, poisoning, privacy."""
