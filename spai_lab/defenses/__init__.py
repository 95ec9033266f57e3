"""Defenses of the survey, by what they stand against: evasion, poisoning."""
