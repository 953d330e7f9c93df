"""Named errors, each with the exit code that a launcher sees.

Codes 1 to 127 mean "do not restart", 128 and up mean "restart", as Kubeflow reads them.
"""

STOPPED = 202  # exit code: on request, with all committed that had been trained when its last save began
REFUSALS = (65, 70, 78, 203)  # exit codes of a start that is refused: see below


class ResumeError(Exception):
    """Base of every error that this package raises on purpose; `exit_code` ends the process."""

    exit_code = 1


class ConfigError(ResumeError):
    """An option, environment variable or YAML key is wrong, or the job asks for what cannot work."""

    exit_code = 78


class PromptError(ConfigError):
    """A file of prompts cannot be used, or one of its rows is no prompt; the message names file, line and key."""


class DivergedError(ConfigError):
    """Ranks hold different states of what they are to share, so that one for all of them would be wrong."""


class MismatchError(ResumeError):
    """The job was changed so that it can no longer continue from its resume point."""

    exit_code = 78


class DamagedError(ResumeError):
    """What lies on disk is damaged and no whole resume point is left to continue from."""

    exit_code = 65


class UncommittedError(ResumeError):
    """Saves come to no resume point any more; the same start again would not change that."""

    exit_code = 78


class HeldError(ResumeError):
    """Another process holds this job; two that train on one folder would destroy each other's work."""

    exit_code = 78


class CrashLoopError(ResumeError):
    """The job failed too often, or again and again at the same place."""

    exit_code = 70


class HelperDiedError(ResumeError):
    """A helper process of this rank was killed; a restart begins with new ones."""

    exit_code = 137


class RejoinError(ResumeError):
    """This process no longer belongs to the job as it is now; a restart lets it join again."""

    exit_code = 203


class UnreadableError(ResumeError):
    """The storage does not say what lies there. It may be whole, so nothing is decided without it.

    `what` names path and cause; the message adds what to do.
    """

    exit_code = 203
    remedy = "start again once the storage answers"

    def __init__(self, what: str, way_back: str = "--load-data-checkpoint-iteration N", more: str = ""):
        """`way_back` is what to type to do without it; `more` is added at the end."""
        self.what, self.way_back = what, way_back
        super().__init__(
            f"{what}. It may be whole, so no older point is taken in its place: {self.remedy}; or, to do without it, "
            f"go back on purpose with {way_back} (`megatron-resume status` lists the points){more}"
        )


class DeniedError(UnreadableError, ConfigError):
    """This user may not read what lies there; no restart would change that."""

    exit_code = 78
    remedy = "let this user read it (chmod, chown: under umask 077 a job writes for its own user alone)"


class UnsupportedMegatron(ResumeError):
    """The installed Megatron lacks a function or parameter that a hook needs."""

    exit_code = 78
