"""The fault tolerance policy: what restarts the job, how often, and after how long a silence.

Written once, in fault_tolerance.yaml. Launch engines are told what of it they can do (`launch/`), and the job itself
does the rest (`watch/`).
"""

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, get_args, get_type_hints

import msgspec
from msgspec import Meta

from .errors import ConfigError
from .plain_yaml import load_yaml
from .sources import nearest, show

Phase = Literal["setup", "rollout", "train", "checkpoint", "evaluate", "exit"]
PHASES: tuple[Phase, ...] = get_args(Phase)
EXAMPLES = "90s, 30m, 1h or 1h30m"
VARIABLE = "MEGATRON_RESUME_POLICY"
FATAL = (65, 70, 78)  # damage, given up, configuration
MAX = 10_000  # restarts
MAX_NAMED, MAX_NAME = 200, 200  # failures, and characters of an exception

StopSignal = Literal["SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2"]
STOP_SIGNALS: tuple[StopSignal, ...] = get_args(StopSignal)

_UNITS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
# As text: compiled where they are first needed, not in each process that imports this.
_DURATION = r"(?:(\d{1,4})d)?(?:(\d{1,5})h)?(?:(\d{1,6})m)?(?:(\d{1,8}(?:\.\d{1,3})?)s)?"
_PLACE = r"(.*) - at `(?:\$|key in \$)\.?(.*)`"
_UNKNOWN = r"Object contains unknown field `(.*)`"


class Duration(float):
    """A time in seconds, which people write with its units."""

    def __str__(self) -> str:
        """As it is written: 1h30m."""
        rest, found = float(self), ""
        for unit, seconds in _UNITS.items():
            count, rest = (rest, 0.0) if unit == "s" else divmod(rest, seconds)
            found += f"{count:g}{unit}" if count else ""
        return found or "0s"

    @classmethod
    def read(cls, text: object) -> "Duration":
        """Raises ValueError, which says what to type, for anything but a positive time with units."""
        if not isinstance(text, str):
            raise ValueError(f"it has no unit; write {EXAMPLES}")
        found = re.fullmatch(_DURATION, text.replace(" ", ""))
        counts = [0.0 if count is None else float(count) for count in found.groups()] if found else [0.0]
        seconds = sum(count * unit for count, unit in zip(counts, _UNITS.values(), strict=False))
        if seconds <= 0:
            raise ValueError(f"it is no time; write {EXAMPLES}")
        return cls(seconds)


def _about(text: str) -> Meta:
    """The one text about a field, as `policy init` prints it."""
    return Meta(description=text)


class _Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class Hang(_Part, frozen=True, kw_only=True):
    """How long a rank may be without progress."""

    timeout: Annotated[Duration, _about("In any phase that has no time of its own.")] = Duration(3_600)
    setup: Annotated[Duration | None, _about("From the start of the process to its first train step.")] = None
    rollout: Annotated[Duration | None, _about("Where responses are generated.")] = None
    train: Annotated[Duration | None, _about("For one train step.")] = None
    checkpoint: Annotated[Duration | None, _about("For one save or load.")] = None
    evaluate: Annotated[Duration | None, _about("For one evaluation.")] = None
    exit: Annotated[Duration | None, _about("From the end of training to that of the process.")] = None

    def of(self, phase: Phase) -> Duration:
        """Seconds without progress after which a rank in `phase` hangs."""
        found: Duration | None = getattr(self, phase)
        return self.timeout if found is None else found

    @property
    def longest(self) -> Duration:
        """What no healthy rank is silent for, whatever it does."""
        return max(self.of(phase) for phase in PHASES)


class RefillAfter(_Part, frozen=True, kw_only=True):
    """What gives the restarts back. With neither of the two they are counted from the first start on."""

    commits: Annotated[
        Annotated[int, Meta(ge=1, le=MAX)] | None, _about("So many resume points that one attempt committed.")
    ] = 1
    health: Annotated[Duration | None, _about("An attempt that trained for so long.")] = None


class Policy(_Part, frozen=True, kw_only=True):
    """What restarts the job, and how often."""

    max_restarts: Annotated[
        Annotated[int, Meta(ge=0, le=MAX)], _about("Restarts after failures and hangs before the job gives up.")
    ] = 3
    hang: Annotated[Hang, _about("How long a rank may be without progress before the job is restarted.")] = Hang()
    refill_after: Annotated[RefillAfter, _about("What gives the restarts back.")] = RefillAfter()
    no_progress_limit: Annotated[
        Annotated[int, Meta(ge=2, le=MAX)],
        _about("Give up after so many attempts in a row that fail at the same iteration."),
    ] = 4
    retry: Annotated[
        tuple[int | str, ...], _about("Exit codes and exception names that are restarted although they seem fatal.")
    ] = ()
    fatal: Annotated[
        tuple[int | str, ...],
        _about("Exit codes and exception names that no restart would mend, beside 65, 70 and 78."),
    ] = ()
    grace_period: Annotated[Duration, _about("From SIGTERM to SIGKILL: time for a last save.")] = Duration(60)
    stop_signals: Annotated[
        tuple[StopSignal, ...],
        _about("Signals to `launch` that stop the job as SIGTERM does; of the others, it takes no notice."),
    ] = STOP_SIGNALS

    def __post_init__(self) -> None:
        for field in ("retry", "fatal"):
            if len(getattr(self, field)) > MAX_NAMED:
                raise ValueError(f"{field} names {len(getattr(self, field))} failures; {MAX_NAMED} are allowed")
            for one in getattr(self, field):
                _check_failure(field, one)
        both = [one for one in self.retry if one in self.fatal]
        if both:
            raise ValueError(f"retry and fatal both name {both[0]}; leave it in one of them")
        if "SIGTERM" not in self.stop_signals:
            raise ValueError("stop_signals lacks SIGTERM, by which launchers stop a job; add it")

    def is_fatal(self, exit_code: int, error: str) -> bool:
        """Whether a process that ended so would only end so again."""
        if exit_code in self.retry or error in self.retry:
            return False
        return exit_code in (*FATAL, *self.fatal) or error in self.fatal


def _check_failure(field: str, one: int | str) -> None:
    if isinstance(one, str) and not (len(one) <= MAX_NAME and all(part.isidentifier() for part in one.split("."))):
        raise ValueError(f"{field} names {show(one)}; write an exit code such as 137, or an exception such as OSError")
    if isinstance(one, int) and not 1 <= one <= 255:
        raise ValueError(f"{field} names the exit code {one}; exit codes of failures are 1 to 255")


def template() -> str:
    """The policy by default as YAML, each field with what it means."""
    head = "How failures and hangs are survived; `megatron-resume policy check FILE` reads it. Times: " + EXAMPLES + "."
    return f"# {head}\n{''.join(_lines(Policy()))}"


def _lines(part: msgspec.Struct, indent: str = "") -> Iterator[str]:
    hints = get_type_hints(type(part), include_extras=True)
    for field in part.__struct_fields__:
        value, meta = getattr(part, field), hints[field].__metadata__[-1]
        yield f"{indent}# {meta.description}\n"
        if isinstance(value, _Part):
            yield f"{indent}{field}:\n"
            yield from _lines(value, indent + "  ")
        elif value is None:
            yield f"{indent}# {field}: {Duration(3_600)}\n"
        else:
            yield f"{indent}{field}: {list(value) if isinstance(value, tuple) else value}\n"


def read_policy(path: str) -> Policy:
    """The policy in the YAML file at `path`; an empty file is the policy by default.

    Raises:
        ConfigError: The file cannot be read, or a field is unknown or wrong; says which, and what to type.
    """
    try:
        content = load_yaml(path)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read: {error.strerror}; `megatron-resume policy init` writes one"
        ) from error
    except ConfigError as error:
        raise ConfigError(f"{path} {error}") from None
    return policy_of({} if content is None else content, path)


def policy_of_environ(environ: Mapping[str, str]) -> Policy:
    """The policy that `launch` passes on as JSON, or that a person names as a file; else the one by default.

    Raises:
        ConfigError: It cannot be read.
    """
    text = environ.get(VARIABLE, "")
    if not text.startswith("{"):
        return read_policy(text) if text else Policy()
    try:
        return policy_of(msgspec.json.decode(text), VARIABLE)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise ConfigError(f"{VARIABLE} is no JSON: {error}") from None


def as_json(policy: Policy) -> str:
    """What `policy_of_environ` reads."""
    return msgspec.json.encode(policy, enc_hook=str).decode()


def policy_of(content: object, source: str) -> Policy:
    """The policy that plain values describe. Raises ConfigError, which names `source`, the field, and what to type."""
    try:
        return msgspec.convert(content, Policy, dec_hook=_decoded)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{source}: {_explained(str(error), content)}") from None


def _decoded(kind: type, value: object) -> Any:
    if kind is Duration:
        return Duration.read(value)
    raise NotImplementedError(kind)


def _explained(error: str, content: object) -> str:
    """msgspec's message, with the field as it is written, the value that was found, and what the field is for."""
    found = re.fullmatch(_PLACE, error)
    reason, place = (found[1], found[2]) if found else (error, "")
    if unknown := re.fullmatch(_UNKNOWN, reason):
        fields = Hang if place == "hang" else RefillAfter if place == "refill_after" else Policy
        name = f"{place}.{unknown[1]}" if place else unknown[1]
        return f"{name} is not known; {nearest(unknown[1], fields.__struct_fields__)}"
    if not place:
        return reason if isinstance(content, dict) else f"it holds {show(content)}; it must hold `field: value` lines"
    field = place.partition("[")[0]
    return f"{field} is {show(_at(content, field))}: {reason}; `megatron-resume policy init` shows what it may be"


def _at(content: object, place: str) -> object:
    for name in place.split("."):
        if isinstance(content, dict):
            content = content.get(name)
    return content
