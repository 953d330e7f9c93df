"""The four roles of an RLHF job, and the names that other projects give them."""

from collections.abc import Iterable

from .errors import ConfigError

TRAINED = ("policy", "value")
FROZEN = ("reference", "reward")  # keep every argument, never resumed
ROLES = TRAINED + FROZEN

ALIASES = {
    "ppo_policy": "policy",
    "actor": "policy",
    "ppo_value": "value",
    "critic": "value",
    "ref": "reference",
    "rm": "reward",
}


def canonical(name: str) -> str:
    """The role that `name` stands for: a role itself or one of its aliases.

    Raises:
        ConfigError: No role has this name.
    """
    role = ALIASES.get(name, name)
    if role not in ROLES:
        raise ConfigError(
            f"{name!r} is not a role; use one of {', '.join(ROLES)} (also understood: {', '.join(ALIASES)})"
        )
    return role


def trained_roles(names: Iterable[str]) -> tuple[str, ...]:
    """The roles that commit together, in the order given and without doubles.

    Raises:
        ConfigError: No role was named, or one of them is frozen.
    """
    roles = tuple(dict.fromkeys(canonical(name) for name in names))
    frozen = [role for role in roles if role in FROZEN]
    if frozen:
        raise ConfigError(
            f"trained_roles names {', '.join(frozen)}, which is never trained or resumed; "
            f"use {','.join(TRAINED)} or one of them"
        )
    if not roles:
        raise ConfigError(f"trained_roles is empty; use {','.join(TRAINED)} or one of them")
    return roles
