"""What ChatLearn's engine gets from us, on the failures that cost its users work; Megatron's part is in real_megatron/.

The engine is a double of its calls and their order; the trained models are files, as they leave them.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import msgspec
import pytest

from megatron_resume.checkpoint import commit
from megatron_resume.checkpoint.chatlearn import import_chatlearn
from megatron_resume.checkpoint.events import Committed, events_path, read_events
from megatron_resume.checkpoint.layout import COMMITTED, PointName, point_path
from megatron_resume.checkpoint.leases import Lease, claim
from megatron_resume.checkpoint.records import Receipt, Request, read
from megatron_resume.errors import ConfigError, MismatchError, RejoinError, UnsupportedMegatron
from megatron_resume.resume.choose import Fresh, Resume
from support.chatlearn_files import ChatLearnJob
from support.job_on_disk import JobOnDisk, contents

pytestmark = pytest.mark.torch

DOUBLE = Path(__file__).with_name("chatlearn_double")
SAMPLES = 16
PROMPTS = [f"prompt {row}" for row in range(100)]


@pytest.fixture(autouse=True)
def chatlearn(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """Our module, installed on the double."""
    from megatron_resume import chatlearn

    monkeypatch.syspath_prepend(str(DOUBLE))
    monkeypatch.setenv("MEGATRON_RESUME_LAUNCH_ID", "launch")
    chatlearn.install()
    yield chatlearn
    chatlearn.uninstall()
    for name in [name for name in sys.modules if name.partition(".")[0] == "chatlearn"]:
        del sys.modules[name]


def start_name() -> str:
    from megatron_resume.chatlearn import start_name

    return start_name()


class Engine:
    """One life of a job: the replicas of its first model as they are, the trained models as files."""

    def __init__(self, job: JobOnDisk, replicas: int = 2, prompts: list[str] = PROMPTS, **runtime: Any):
        self.job, self.prompts = job, prompts
        defaults = {
            "data_checkpoint_path": str(job.root),
            "max_data_ckpt_nums": None,
            "load_data_checkpoint_iteration": None,
            "enable_resume_training": True,
            "sample_per_episode": SAMPLES,
            "data_ratio": None,
            "consumed_samples": 0,
            "_args_dict": {},
        }
        trainable = {"policy": False, "value": False, "ppo_policy": True, "ppo_value": True}
        models = {name: SimpleNamespace(trainable=is_it) for name, is_it in trainable.items()}
        self.replicas = []
        for replica in range(replicas):
            args = SimpleNamespace(models=models, runtime_args=SimpleNamespace(**{**defaults, **runtime}))
            self.replicas.append(modules().BaseModule("policy", args, replica))

    def set_up(self) -> "Engine":
        """The replicas, then the trained models begin the attempt; then prompts are drawn."""
        outcome = self.job.choose()
        for replica in self.replicas:
            replica.model_setup()
        self.begin_attempt(outcome.point.name if isinstance(outcome, Resume) else None)
        for replica in self.replicas:
            replica._build_dataloader(self.prompts, 1)
        return self

    def begin_attempt(self, parent: PointName | None, start: str | None = None) -> None:
        self.attempt = self.job.attempt(parent)
        for role in self.job.roles:
            lease = Lease(holder=self.job.launch(), start=start or start_name())
            claim(self.job.root, self.attempt, role, lease)

    def run(self, iterations: int, dies_after: str = "") -> "Engine":
        """That many episodes of one iteration, each saved; in the last one it dies after a part, where one is named."""
        for number in range(1, iterations + 1):
            for replica in self.replicas:
                replica.rollout()
            iteration = self.consumed(0) // SAMPLES
            self.save(iteration, dies_after if number == iterations else "")
        return self

    def save(self, iteration: int, dies_after: str) -> None:
        name = PointName(iteration, self.attempt)
        commit.open_point(self.job.root, name)
        for role in self.job.roles:
            self._save_model(role, name)
            if dies_after == role:
                return
        for number, replica in enumerate(self.replicas):
            replica.save_data_checkpoint(number, iteration, iteration - 1)
            if dies_after == f"replica{number}":
                return

    def _save_model(self, role: str, name: PointName) -> None:
        receipt = self.job.receipt(role, name, self.job.progress(name))
        unaware = msgspec.structs.replace(receipt, progress=msgspec.UNSET)  # a trainer knows of no episodes
        commit.write_receipt(point_path(self.job.root, name), unaware)

    def meta(self, replica: int = 0) -> dict[str, Any] | None:
        meta: dict[str, Any] | None = self.replicas[replica].data_ckpt_manager.resume_meta()
        return meta

    def consumed(self, replica: int) -> int:
        return int(self.replicas[replica].runtime_args.consumed_samples)


def modules() -> ModuleType:
    from chatlearn.models import base_module  # the double, from here on

    return base_module


def test_a_fresh_start_begins_at_the_first_episode(job: JobOnDisk) -> None:
    engine = Engine(job).set_up()
    assert engine.meta() is None
    assert [replica.resume_training for replica in engine.replicas] == [False, False]
    assert engine.replicas[0].rollout() == PROMPTS[:SAMPLES]


def test_what_is_saved_is_continued_from_by_models_and_data_alike(job: JobOnDisk) -> None:
    Engine(job).set_up().run(3)
    engine = Engine(job).set_up()
    assert engine.meta() == {
        "episode": 2,
        "train_iteration": 3,
        "consumed_samples": 48,
        "sample_per_episode": SAMPLES,
        "data_ratio": None,
    }
    assert [replica.resume_training for replica in engine.replicas] == [True, True]
    outcome = job.choose()
    assert isinstance(outcome, Resume)
    assert outcome.point.name == PointName(3, 1)
    assert engine.replicas[0].rollout() == PROMPTS[48:64]


@pytest.mark.parametrize("dies_after", ["policy", "value"])
def test_killed_before_the_data_the_episode_is_trained_again_by_all(job: JobOnDisk, dies_after: str) -> None:
    Engine(job).set_up().run(3, dies_after)
    engine = Engine(job).set_up()
    meta, outcome = engine.meta(), job.choose()
    assert meta is not None
    assert isinstance(outcome, Resume)
    assert (meta["episode"], meta["train_iteration"], outcome.point.name) == (1, 2, PointName(2, 1))


def test_commits_are_told_to_monitoring_by_who_owns_the_data(job: JobOnDisk) -> None:
    Engine(job).set_up().run(2)
    told = read_events(events_path(job.root, 1, "data")).events
    assert [(type(event), event.iteration) for event in told] == [(Committed, 1), (Committed, 2)]


def test_killed_after_the_data_of_replica_0_all_replicas_are_at_one_place(job: JobOnDisk) -> None:
    Engine(job, replicas=4).set_up().run(2, dies_after="replica0")
    engine = Engine(job, replicas=4).set_up()
    assert [engine.consumed(replica) for replica in range(4)] == [32] * 4
    assert job.folder().committed == [PointName(1, 1), PointName(2, 1)]


@pytest.mark.parametrize(("before", "after"), [(2, 4), (4, 1)])
def test_the_number_of_replicas_may_change(job: JobOnDisk, before: int, after: int) -> None:
    Engine(job, before).set_up().run(2)
    engine = Engine(job, after).set_up()
    assert [engine.consumed(replica) for replica in range(after)] == [32] * after


def test_a_roll_back_takes_models_and_data_back(job: JobOnDisk) -> None:
    Engine(job).set_up().run(3)
    engine = Engine(job, load_data_checkpoint_iteration=2)
    for replica in engine.replicas:
        replica.model_setup()
    assert engine.consumed(0) == 32
    outcome = job.choose(Request(iteration=2))  # what a trainer does of the same configuration
    assert isinstance(outcome, Resume)
    assert outcome.point.name == PointName(2, 1)


def test_a_torn_newest_point_and_no_tracker_cost_one_episode(job: JobOnDisk) -> None:
    Engine(job).set_up().run(3)
    torn = point_path(job.root, PointName(3, 1)) / "data.json"
    torn.write_bytes(torn.read_bytes()[:40])
    assert not list(job.root.rglob("latest_checkpointed_iteration.txt"))
    engine = Engine(job).set_up()
    assert engine.consumed(1) == 32


def test_points_are_counted_and_neither_replicas_nor_folders_of_others(job: JobOnDisk) -> None:
    (job.root / "notes").mkdir()
    Engine(job, replicas=4, max_data_ckpt_nums=2).set_up().run(5)
    assert job.folder().committed == [PointName(4, 1), PointName(5, 1)]
    assert (job.root / "notes").is_dir()


def test_another_number_of_samples_per_episode_is_refused(job: JobOnDisk) -> None:
    Engine(job).set_up().run(2)
    with pytest.raises(MismatchError, match="sample_per_episode was 16 .* and is 999.* Write sample_per_episode: 16"):
        Engine(job, sample_per_episode=999).set_up()


@pytest.mark.parametrize("prompts", [[*PROMPTS, "one more"], [*PROMPTS[:-1], "another"]], ids=["grown", "changed"])
def test_other_prompts_than_were_saved_with_are_refused(job: JobOnDisk, prompts: list[str]) -> None:
    Engine(job).set_up().run(2)
    with pytest.raises(MismatchError, match="are 100 rows .* and now they are 10[01] rows .* start_over: True"):
        Engine(job, prompts=prompts).set_up()


def test_chatlearns_own_data_checkpoints_are_not_left_lying_for_a_fresh_start(job: JobOnDisk) -> None:
    (job.root / "replica0_step40").mkdir()
    before = contents(job.base)
    with pytest.raises(ConfigError, match="replica0_step40 is of ChatLearn's own format. .* import-chatlearn"):
        Engine(job).set_up()
    assert contents(job.base) == before


def test_what_was_imported_of_chatlearns_own_is_continued_from(tmp_path: Path) -> None:
    old = ChatLearnJob(tmp_path / "old")
    for step in (2, 4):
        old.save(step)
    job = JobOnDisk(tmp_path)
    job.root = tmp_path / "new"
    import_chatlearn(old.data, old.models, job.root)
    engine = Engine(job).set_up()
    meta = engine.meta()
    assert meta is not None
    assert (meta["episode"], meta["train_iteration"], engine.consumed(1)) == (1, 4, 32)


def test_switched_off_nothing_is_resumed(job: JobOnDisk) -> None:
    Engine(job).set_up().run(2)
    engine = Engine(job, enable_resume_training=False)
    engine.replicas[0].model_setup()
    assert (engine.consumed(0), engine.meta()) == (0, None)


def test_the_same_iteration_saved_again_keeps_the_point(job: JobOnDisk) -> None:
    engine = Engine(job).set_up().run(2)
    point = point_path(job.root, PointName(2, 1))
    before = contents(point)
    engine.replicas[0].save_data_checkpoint(0, 2, 1)
    assert contents(point) == before


def test_whoever_writes_the_last_part_commits(job: JobOnDisk) -> None:
    engine = Engine(job).set_up()
    name = PointName(1, 1)
    commit.open_point(job.root, name)
    engine.replicas[0].rollout()
    engine._save_model("policy", name)
    engine.replicas[0].save_data_checkpoint(0, 1, 0)  # value's writer thread is late
    assert job.folder().committed == []
    engine._save_model("value", name)
    assert commit.missing_parts(point_path(job.root, name), job.roles) == []
    assert commit.differing_parts(point_path(job.root, name), job.roles) == []


def test_a_receipt_of_another_life_makes_no_point_with_our_data(
    job: JobOnDisk, caplog: pytest.LogCaptureFixture
) -> None:
    engine = Engine(job).set_up()
    name = PointName(1, 1)
    commit.open_point(job.root, name)
    engine._save_model("policy", name)
    path = point_path(job.root, name) / "policy.json"
    forged = msgspec.structs.replace(read(path, Receipt), nonce="of another life")
    path.unlink()
    commit.write_receipt(path.parent, forged)
    engine._save_model("value", name)
    engine.replicas[0].rollout()
    engine.replicas[0].save_data_checkpoint(0, 1, 0)
    assert not (path.parent / COMMITTED).exists()
    assert "its parts are of different moments: policy at an episode that it does not know" in caplog.text


def test_data_is_not_written_into_an_attempt_of_another_start(job: JobOnDisk) -> None:
    engine = Engine(job).set_up().run(1)
    late = Engine(job).set_up()
    late.begin_attempt(PointName(1, 1), start="of another engine")
    before = contents(job.root)
    for each, why in ((late, "attempt 3 .* is not of this start"), (engine, "attempt 1 was superseded by attempt 3")):
        with pytest.raises(RejoinError, match=why):
            each.replicas[0].save_data_checkpoint(0, 2, 1)
    assert contents(job.root) == before


def test_data_and_models_that_chose_different_points_do_not_go_on_together(job: JobOnDisk) -> None:
    Engine(job).set_up().run(2)
    engine = Engine(job)
    engine.replicas[0].model_setup()
    engine.begin_attempt(PointName(1, 1))
    with pytest.raises(RejoinError, match="continues from iteration 1 of attempt 1, its data from iteration 2"):
        engine.replicas[0].save_data_checkpoint(0, 3, 2)


def test_an_inference_copy_begins_nothing_whatever_the_environment_says(
    job: JobOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    from megatron_resume.adapter import session  # and torch

    monkeypatch.setenv("MEGATRON_RESUME_DATA_CHECKPOINT_PATH", str(job.root))
    monkeypatch.setenv("MEGATRON_RESUME_TRAINED_ROLES", "policy")
    assert session.begin(SimpleNamespace(save="/s", load="/l")) is None, "Megatron's arguments begin nothing here"
    Engine(job).replicas[0].model_setup()
    assert session.current() is None


def test_the_driver_refuses_to_roll_out_with_a_copy_that_is_never_synchronised(job: JobOnDisk) -> None:
    from chatlearn.runtime.dist_actor import DistActor
    from chatlearn.runtime.engine import Engine as Driver

    before = Engine(job).set_up().run(2)
    before.begin_attempt(PointName(2, 1))
    module = before.replicas[0]
    handles = [DistActor(SimpleNamespace(**{**vars(module), "name": name}), []) for name in module.global_args.models]
    driver = Driver(module.runtime_args, handles[:2], handles[2:], PROMPTS)
    driver.set_parameter_sync(handles[2], handles[0])
    with pytest.raises(SystemExit) as ended:
        driver._resume_from_data_checkpoint()
    assert ended.value.code == 78
    assert isinstance(ended.value.__cause__, ConfigError)
    assert "nothing synchronises value from ppo_value" in str(ended.value.__cause__)
    driver.set_parameter_sync(handles[3], handles[1])
    driver._resume_from_data_checkpoint()
    assert (driver._start_episode, driver.iteration) == (2, 2)
    (point_path(job.root, PointName(2, 1)) / "value.json").write_bytes(b"")  # since the trained roles looked
    with pytest.raises(SystemExit) as ended:
        driver._resume_from_data_checkpoint()
    assert ended.value.code == 203


def test_the_data_ratio_is_that_of_the_point(job: JobOnDisk) -> None:
    Engine(job, data_ratio=[2, 1]).set_up().run(1)
    meta = Engine(job, data_ratio=[3, 1]).set_up().run(1).meta()
    assert meta is not None
    assert meta["data_ratio"] == [2, 1]


def test_a_data_ratio_that_no_record_can_hold_is_left_to_the_configuration(job: JobOnDisk) -> None:
    Engine(job, data_ratio=object()).set_up().run(1)
    meta = Engine(job, data_ratio=[5, 1]).set_up().meta()
    assert meta is not None
    assert meta["data_ratio"] == [5, 1]


def test_processes_that_cannot_know_each_other_are_refused(job: JobOnDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MEGATRON_RESUME_LAUNCH_ID")
    with pytest.raises(ConfigError, match="set MEGATRON_RESUME_LAUNCH_ID"):
        Engine(job).set_up()
    runtime = SimpleNamespace(get_runtime_context=lambda: SimpleNamespace(get_job_id=lambda: "01000000"))
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: True, **vars(runtime)))
    assert start_name() == "chatlearn::01000000"
    Engine(job).set_up()


def test_a_job_that_trains_no_value_commits_policy_alone(tmp_path: Path) -> None:
    job = JobOnDisk(tmp_path, roles=("policy",))
    engine = Engine(job, replicas=1)
    for replica in engine.replicas:
        del replica.global_args.models["ppo_value"]
    engine.set_up().run(2)
    assert job.folder().committed == [PointName(1, 1), PointName(2, 1)]


def test_keys_of_ours_may_stand_in_its_configuration_and_a_wrong_one_is_named_as_it_is_written(job: JobOnDisk) -> None:
    engine = Engine(job, max_data_ckpt_nums=3, _args_dict={"resume_prune_models": "true", "data_path": "/d"}).set_up()
    assert engine.replicas[0].data_ckpt_manager.megatron_resume.config.resume_prune_models
    with pytest.raises(ConfigError, match=r"runtime.max_data_ckpt_nums is 0: .* `max_data_ckpt_nums: 3`"):
        Engine(job, max_data_ckpt_nums=0).set_up()


def test_a_chatlearn_without_these_calls_is_refused_by_name(chatlearn: ModuleType) -> None:
    chatlearn.uninstall()
    from chatlearn.checkpoint import checkpoint_manager

    del checkpoint_manager.CheckpointManager.resume
    with pytest.raises(UnsupportedMegatron, match="CheckpointManager.resume does not exist in chatlearn"):
        chatlearn.install()
    assert not chatlearn.hook_set.installed


def test_a_point_without_a_fresh_episode_is_no_fresh_start(job: JobOnDisk) -> None:
    """Episode 0 saved nothing: the first point is of episode 1, and ChatLearn counts from the one after it."""
    assert isinstance(job.choose(), Fresh)
    Engine(job).set_up().run(1)
    meta = Engine(job).set_up().meta()
    assert meta is not None
    assert (meta["episode"], meta["consumed_samples"]) == (0, SAMPLES)
