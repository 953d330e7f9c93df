"""Whether another life of the job is worth it: the rule that holds across launches and requeues."""

from collections.abc import Iterable

import msgspec

from ..checkpoint.failures import Failure
from ..checkpoint.lives import Life
from ..errors import STOPPED, ConfigError, CrashLoopError, ResumeError
from ..policy import FATAL, Policy
from ..shown import shown_in_line

_STORY = 5  # lives that are told


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """What the lives before leave.

    Attributes:
        used: restarts since the last life that gave them back.
        story: the last failed lives, newest first.
        over: the error that ends the job; None where it may go on.
    """

    used: int
    story: tuple[str, ...]
    over: ResumeError | None = None


def budget(policy: Policy, lives: Iterable[Life], job: str) -> Budget:
    """Judge by `lives`, newest first and read no further than needed; `job` is the launch that asks."""
    failed: list[Life] = []
    used, refilled, same_place = 0, False, 0
    is_same = True
    for life in lives:
        if life.state in ("finished", "new budget"):
            break
        if life.state == "running" or is_free(life):
            continue
        if not failed and life.job == job and is_fatal(policy, life):
            return Budget(used=1, story=(told(life),), over=_fatal(policy, life))
        is_same = is_same and life.iteration is not None and (not failed or life.iteration == failed[0].iteration)
        same_place += is_same
        used += not refilled
        failed.append(life)
        refilled = refilled or refills(policy, life)
        if refilled and not is_same:
            break
    story = tuple(told(life) for life in failed[:_STORY])
    return Budget(used=used, story=story, over=_over(policy, failed, used, same_place, story))


def is_free(life: Life) -> bool:
    """Whether it ended on request, with everything saved: a preemption costs no restart, nor does a planned end."""
    return life.state == "stopped" and life.ending is not None and life.ending.exit_code in (0, STOPPED)


def is_fatal(policy: Policy, life: Life) -> bool:
    """Whether a life that ended so would only end so again."""
    cause, ending = life.cause, life.ending
    code = cause.exit_code if cause else ending.exit_code if ending else None
    error = cause.error if cause else getattr(ending, "error", "")
    if cause is not None and cause.fatal and code not in policy.retry and error not in policy.retry:
        return True
    return policy.is_fatal(code or 0, error)


def refills(policy: Policy, life: Life) -> bool:
    """Whether it came far enough to give the restarts back."""
    after = policy.refill_after
    trained_s = life.cause.trained_s if life.cause else 0.0
    by_commits = after.commits is not None and life.commits >= after.commits
    return by_commits or (after.health is not None and trained_s >= after.health)


def told(life: Life) -> str:
    """One line about the end of a life, as it may be shown: texts of errors come from disk, and may have several."""
    return shown_in_line(_told(life))


def _told(life: Life) -> str:
    who = f"attempt {life.attempt}" if life.attempt else "a start before its first load"
    at = "" if life.iteration is None else f" at iteration {life.iteration}"
    cause, ending = life.cause, life.ending
    if cause is None and ending is not None:
        return f"{who} ended{at}: {getattr(ending, 'error', '') or getattr(ending, 'reason', '')}"
    if cause is None:
        return f"{who} ended{at} without a record: killed, out of memory, or lost node"
    return f"{who}{at}: {_of_a_rank(cause)}"


def told_of_a_rank(cause: Failure) -> str:
    """One line about how a rank failed, as it may be shown."""
    return shown_in_line(_of_a_rank(cause))


def _of_a_rank(cause: Failure) -> str:
    rank = f"rank {cause.rank} on {cause.host}"
    kernel = f"; {cause.kernel}" if cause.kernel else ""
    if cause.how == "hang":
        return f"{rank} made no progress in {cause.phase} for {cause.silent_s:.0f} s{kernel}"
    if cause.error:
        return f"{rank} failed in {cause.phase} with {cause.error}: {cause.message}{kernel}"
    by = f"by {cause.signal}" if cause.signal else "without a word" if cause.exit_code is None else ""
    code = f"with exit code {cause.exit_code}" if cause.exit_code is not None else ""
    return f"{rank} ended in {cause.phase} {by}{code}{kernel}"


def _over(
    policy: Policy, failed: list[Life], used: int, same_place: int, story: tuple[str, ...]
) -> CrashLoopError | None:
    told_all = "".join(f"\n  {line}" for line in story)
    again = "mend the cause, and type `megatron-resume launch --new-budget ...` to count anew"
    if same_place >= policy.no_progress_limit:
        at = failed[0].iteration
        return CrashLoopError(
            f"given up: {same_place} lives in a row ended at iteration {at} (no_progress_limit is "
            f"{policy.no_progress_limit}); {again}{told_all}"
        )
    if used > policy.max_restarts > 0:  # with 0 somebody else restarts the job, and counts
        iteration = failed[0].iteration
        last = "" if iteration is None else f", the last at iteration {iteration}"
        return CrashLoopError(
            f"given up: {used} lives ended without a refill between them{last} "
            f"(max_restarts is {policy.max_restarts}); {again}{told_all}"
        )
    return None


def _fatal(policy: Policy, life: Life) -> ResumeError:
    error = ConfigError(f"this launch was ended by a failure that no restart mends: {told(life)}")
    code = life.cause.exit_code if life.cause else life.ending.exit_code if life.ending else None
    if code in FATAL or code in policy.fatal:
        error.exit_code = code
    return error
