"""Many students on one machine: what a student's server does before it serves, and what its processes may use.

`deploy/README.md` tells how a hub is set up; nothing here is imported outside of one.
"""
