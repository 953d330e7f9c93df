"""ChatLearn's checkpoint calls on our store: `install()` in a module that its driver and all its actors import.

Its engine (1.0, Megatron backend) makes one manager in each actor and one in the driver. An actor's `model_setup` asks
what to resume, then sets its model up; the driver asks for episode and iteration when all are set up, and synchronises
the inference copies `policy` and `value` before it rolls out. It saves the trained models first, then the data of each
replica of its first model. The trained models take the places of our roles by themselves; replica 0 writes the data.
"""

import glob
import hashlib
import inspect
import os
import sys
from collections.abc import Mapping
from typing import Any

import msgspec

from .adapter import install as megatron
from .adapter import session
from .adapter.data_process import DataProcess
from .adapter.ending import truthful_end
from .adapter.engine import begin_role
from .checkpoint.records import Moment
from .config import KEYS, ResumeConfig, resolve
from .errors import ConfigError, MismatchError, ResumeError
from .hooks import AnyFunction, Hook, HookSet
from .resume.choose import Fresh, Resume
from .sources import Given

ROLES = {"ppo_policy": "policy", "ppo_value": "value"}  # ChatLearn's policy and value are inference copies of these
STATE = "chatlearn"  # in the data checkpoint: what the order of ChatLearn's prompts depends on

Meta = dict[str, Any]


class CheckpointManager:
    """What ChatLearn's own is asked for, answered from resume points."""

    def __init__(
        self,
        model: Any,
        path: str,
        max_ckpt_nums: int | None,
        load_iteration: int | None = None,
        config_to_check: Mapping[str, Any] | None = None,
    ):
        """`model` is ChatLearn's module in an actor, its handle in the driver; a trained module begins its role here.

        Raises:
            ResumeError: The start is refused. (SystemExit where a trained role says so.)
        """
        self._is_drivers = hasattr(model, "all_actors")
        self._module = model.model if self._is_drivers else model
        self._config_to_check = dict(config_to_check or {})
        self._dataset: Meta | None = None
        role = None if self._is_drivers or not model.trainable else ROLES.get(model.name)
        self.config = _config(
            self._module,
            role,
            data_checkpoint_path=path,
            max_data_ckpt_nums=max_ckpt_nums,
            load_data_checkpoint_iteration=load_iteration,
        )
        _refuse_own_format(path)
        self._data = DataProcess(self.config, start_name())
        if role in self.config.trained_roles:
            begin_role(self.config, start_name())

    def save_checkpoint(self, replica_id: int, train_iter: int, episode: int, consumed_samples: int) -> bool:
        """Write the data of `train_iter`, after the models: replica 0 does it for all, since the state is global."""
        if replica_id == 0 and train_iter > 0:  # of iteration 0 the trained roles have said that it is no resume point
            moment = Moment(episode=episode + 1, consumed_samples=consumed_samples)
            self._data.save(train_iter, moment, {STATE: self._state()})
        return True

    def resume_meta(self) -> Meta | None:
        """Episode (the last that was done), iteration and samples to continue from; None on a fresh start.

        Raises:
            ResumeError: The start is refused.
        """
        outcome = self._outcome
        if self._is_drivers:  # which asks when the trained roles have begun
            self._data.check_continues_with_roles()
        if isinstance(outcome, Fresh):
            return None
        moment, state = outcome.point.data.progress, _saved_state(outcome)
        self._check_unchanged(outcome, state)
        return {
            "episode": moment.episode - 1,
            "train_iteration": outcome.point.iteration,
            "consumed_samples": moment.consumed_samples,
            "sample_per_episode": state.get("sample_per_episode", self._module.runtime_args.sample_per_episode),
            "data_ratio": state.get("data_ratio", self._data_ratio),
        }

    def resume(self) -> Meta | None:
        """The same, and let the module count on from there."""
        meta = self.resume_meta()
        if meta is not None:
            self._module.runtime_args.consumed_samples = meta["consumed_samples"]
            self._module.runtime_args.data_ratio = meta["data_ratio"]
        return meta

    def see_dataset(self, prompts: Any) -> None:
        """Note the prompts that the module draws from.

        Raises:
            MismatchError: They are not those of the resume point.
        """
        self._dataset = _fingerprint(prompts)
        outcome = self._outcome
        saved = _saved_state(outcome).get("dataset") if isinstance(outcome, Resume) else None
        if saved is not None and self._dataset is not None and saved != self._dataset:
            raise MismatchError(
                f"start refused: the prompts of the resume point are {_shown(saved)}, and now they are "
                f"{_shown(self._dataset)}: ChatLearn's sampler would repeat some and leave others out. Restore "
                "them, or begin anew with start_over: True"
            )

    @property
    def _outcome(self) -> Fresh | Resume:
        current = session.current()
        return current.outcome if current is not None else self._data.outcome

    @property
    def _data_ratio(self) -> Any:
        return getattr(self._module.runtime_args, "data_ratio", None)

    def _state(self) -> Meta:
        return {
            "sample_per_episode": int(self._module.runtime_args.sample_per_episode),
            "dataset": self._dataset,
            **({"data_ratio": self._data_ratio} if _is_plain(self._data_ratio) else {}),
        }

    def _check_unchanged(self, outcome: Resume, state: Meta) -> None:
        """Raises MismatchError where ChatLearn's sampler would repeat prompts and leave others out."""
        now = {"sample_per_episode": self._module.runtime_args.sample_per_episode, **self._config_to_check}
        for key, value in now.items():
            if key in state and state[key] != value:
                raise MismatchError(
                    f"start refused: {key} was {state[key]} when {outcome.point.name} was saved and is {value}: "
                    f"prompts would be repeated and left out. Write {key}: {state[key]}, or begin anew with "
                    "start_over: True"
                )


def start_name() -> str:
    """What all processes of this run of the engine have in common.

    Raises:
        ConfigError: Nothing.
    """
    ray, launch = sys.modules.get("ray"), os.environ.get("MEGATRON_RESUME_LAUNCH_ID", "")
    job = str(ray.get_runtime_context().get_job_id()) if ray is not None and ray.is_initialized() else ""
    if not launch and not job:
        raise ConfigError(
            "start refused: this process is in no Ray job, so its engine's other processes could not be told from "
            "those of another; set MEGATRON_RESUME_LAUNCH_ID to the same name in all of them"
        )
    return f"chatlearn:{launch}:{job}"


def _config(module: Any, role: str | None, **given: Any) -> ResumeConfig:
    """Our configuration from ChatLearn's `runtime:` section, for a module that trains `role`, or none."""
    runtime = module.runtime_args
    found = {key: value for key, value in (getattr(runtime, "_args_dict", None) or {}).items() if key in KEYS}
    found |= {**given, "enable_resume_training": getattr(runtime, "enable_resume_training", True)}
    found.setdefault("trained_roles", tuple(ROLES[name] for name in ROLES if name in module.global_args.models))
    told = {k: Given(v, f"runtime.{k}", f"{k}: ") for k, v in found.items() if v is not None}
    return resolve({"resume_role": role}, os.environ, told)


def _refuse_own_format(path: str) -> None:
    """Raises ConfigError where ChatLearn's own data checkpoints lie: a fresh start beside them would lose that run."""
    theirs = sorted(glob.glob(f"{glob.escape(path)}/replica*_step*"))
    if theirs:
        raise ConfigError(
            f"start refused: {theirs[0]} is of ChatLearn's own format. Import it with megatron-resume import-chatlearn "
            f"{path} --policy-load DIR --value-load DIR --to NEW, and write data_checkpoint_path: NEW"
        )


def _saved_state(outcome: Resume) -> Meta:
    """What `save_checkpoint` stored; nothing where the point was imported."""
    tracked = outcome.point.data.tracked
    state = tracked.get(STATE) if isinstance(tracked, dict) else None
    return state if isinstance(state, dict) else {}


def _is_plain(value: Any) -> bool:
    """Whether a data checkpoint can hold it."""
    try:
        msgspec.json.encode(value)
    except (TypeError, ValueError):
        return False
    return True


def _shown(fingerprint: Meta) -> str:
    return f"{fingerprint.get('rows')} rows (SHA-256 {str(fingerprint.get('sha256'))[:12]})"


def _fingerprint(prompts: Any) -> Meta | None:
    """Number and digest of the prompts; None where they cannot be counted."""
    if not hasattr(prompts, "__len__"):
        return None
    digest = hashlib.sha256()
    try:
        for prompt in prompts:
            digest.update(msgspec.json.encode(prompt) + b"\n")
    except (TypeError, msgspec.MsgspecError):  # objects of a script's own
        return {"rows": len(prompts), "sha256": None}
    return {"rows": len(prompts), "sha256": digest.hexdigest()}


def _in_place_of(name: str) -> AnyFunction:
    """A hook that lets our manager answer a call of theirs."""

    def wrap(original: AnyFunction) -> AnyFunction:
        signature = inspect.signature(original)

        def method(self: Any, *args: Any, **kwargs: Any) -> Any:
            called_with = signature.bind(self, *args, **kwargs).arguments
            called_with.pop("self")
            return getattr(self.megatron_resume, name)(**called_with)

        return method

    return wrap


def _wrap_init(original: AnyFunction) -> AnyFunction:
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        self.megatron_resume = CheckpointManager(*args, **kwargs)

    return __init__


def _wrap_build_dataloader(original: AnyFunction) -> AnyFunction:
    signature = inspect.signature(original)

    def _build_dataloader(self: Any, *args: Any, **kwargs: Any) -> Any:
        called_with = signature.bind(self, *args, **kwargs).arguments
        ours = getattr(self.data_ckpt_manager, "megatron_resume", None)
        if ours is not None and not called_with.get("is_eval"):
            ours.see_dataset(called_with["data"])
        return original(self, *args, **kwargs)

    return _build_dataloader


def _wrap_engine(original: AnyFunction) -> AnyFunction:
    """In the driver, when all models are set up and before the first parameter synchronisation."""

    def _resume_from_data_checkpoint(self: Any) -> Any:
        with truthful_end():
            result = original(self)
            if self._start_episode > 0:
                _check_copies(self)
        return result

    return _resume_from_data_checkpoint


def _check_copies(engine: Any) -> None:
    """Raises ConfigError where an inference copy would roll out with the weights that it was started with."""
    names, pairs = engine.named_models, [(source.name, copy.name) for source, copy in engine._param_sync_pairs]
    for trained, copy in ROLES.items():
        if trained in names and copy in names and (trained, copy) not in pairs:
            raise ConfigError(
                f"start refused: nothing synchronises {copy} from {trained}, so it would roll out with other weights "
                f"than were trained; call engine.set_parameter_sync({trained}, {copy}) before engine.learn()"
            )


_MANAGER = "chatlearn.checkpoint.checkpoint_manager"
_SAVED = ("replica_id", "train_iter", "episode", "consumed_samples")
hook_set = HookSet(
    (
        Hook(_MANAGER, "CheckpointManager.__init__", ("model", "path", "max_ckpt_nums", "load_iteration"), _wrap_init),
        Hook(_MANAGER, "CheckpointManager.save_checkpoint", _SAVED, _in_place_of("save_checkpoint")),
        Hook(_MANAGER, "CheckpointManager.resume_meta", (), _in_place_of("resume_meta")),
        Hook(_MANAGER, "CheckpointManager.resume", (), _in_place_of("resume")),
        Hook(
            "chatlearn.models.base_module",
            "BaseModule._build_dataloader",
            ("data", "is_eval"),
            _wrap_build_dataloader,
        ),
        Hook("chatlearn.runtime.engine", "Engine._resume_from_data_checkpoint", (), _wrap_engine),
    )
)


def install() -> None:
    """Hook ChatLearn and its Megatron in this process, before or after they are imported; a second call does nothing.

    Raises:
        UnsupportedMegatron: A function or parameter is missing in one of them; nothing is hooked.
    """
    if hook_set.installed:
        return
    megatron.install()
    try:
        hook_set.install()
    except ResumeError:
        megatron.uninstall()
        raise
    session.stand_by()  # what Megatron's arguments or variables say of resuming is not for inference copies


def uninstall() -> None:
    """Give ChatLearn and Megatron their own functions back; waits for pending commits."""
    hook_set.uninstall()
    megatron.uninstall()
