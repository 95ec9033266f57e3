"""Which accounts of the system belong to a class."""

import grp
import os
import pwd

GROUPS = ("students", "lecturers")


def groups_of(name: str) -> list[str]:
    """Those of the class's groups that an account is in.

    >>> groups_of("root")
    []
    """
    numbers = os.getgrouplist(name, pwd.getpwnam(name).pw_gid)
    return [group for group in GROUPS if _number(group) in numbers]


def _number(group: str) -> int | None:
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        return None


def add_groups(authenticator: object, handler: object, auth_model: dict) -> dict:
    """The hub's hook after a log-in: it learns the account's groups, which PAM does not tell it."""
    return {**auth_model, "groups": groups_of(auth_model["name"])}


def may_start(authenticator: object, user: object) -> bool:
    """Whether somebody who is logged in still belongs to the class: a log-in lasts for days, and a token for longer.

    Args:
        authenticator: the hub's, which knows who is allowed.
        user: the hub's idea of the account.
    """
    try:
        return bool(user.admin or authenticator.check_allowed(user.name))
    except KeyError:  # the account is gone
        return False
