"""`policy init` writes the policy by default, `policy check` says what one means."""

from pathlib import Path

from megatron_resume.errors import ConfigError
from megatron_resume.policy import PHASES, Policy, read_policy, template
from megatron_resume.shown import shown_in_line


def init(file: Path | None) -> None:
    """Write the template to a new file, or print it.

    Raises:
        ConfigError: The file is there already.
        OSError: It cannot be written.
    """
    if file is None:
        print(template(), end="")
        return
    try:
        with file.open("x", encoding="utf-8") as new:
            new.write(template())
    except FileExistsError:
        raise ConfigError(
            f"{file} is there already; `megatron-resume policy check {file}` says what it means"
        ) from None
    print(f"wrote {shown_in_line(str(file))}")


def check(file: str) -> None:
    """Print in a few lines what the policy means. Raises ConfigError where it cannot be used."""
    policy = read_policy(file)
    for line in meaning(policy):
        print(line)


def meaning(policy: Policy) -> list[str]:
    """The policy in sentences."""
    times = ", ".join(f"{phase} {policy.hang.of(phase)}" for phase in PHASES)
    return [
        f"restarts: {policy.max_restarts}, {_refilled(policy)}",
        f"a rank hangs when it makes no progress for: {times}",
        f"the job gives up at once after {policy.no_progress_limit} failures in a row at the same iteration, "
        f"after exit codes {_named(('65', '70', '78', *policy.fatal))}",
        f"restarted although they seem fatal: {_named(policy.retry)}",
        f"from SIGTERM to SIGKILL: {policy.grace_period}",
    ]


def _refilled(policy: Policy) -> str:
    after = policy.refill_after
    ways = [] if after.commits is None else [f"commits {after.commits} resume point{'s' * (after.commits > 1)}"]
    ways += [] if after.health is None else [f"trains for {after.health}"]
    return f"given back by an attempt that {' or '.join(ways)}" if ways else "never given back"


def _named(failures: tuple[int | str, ...]) -> str:
    return ", ".join(map(str, failures)) or "none"
