"""The arena: a student's attack meets all defenses, a student's defense meets all attacks, in a process of its own.

Nothing is imported here, so that the process of a submission starts fast: see `spai_lab.arena.arena`.
"""
