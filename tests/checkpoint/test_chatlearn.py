"""A step of ChatLearn becomes a resume point when data and models are of one moment; else the refusal says what is."""

import os
import pickle
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from megatron_resume import crash
from megatron_resume.checkpoint.chatlearn import Chosen, import_chatlearn
from megatron_resume.checkpoint.events import Committed, Finished, events_path, read_events
from megatron_resume.checkpoint.folder import read_folder, read_point
from megatron_resume.checkpoint.layout import COMMITTED, DATA, PointName, point_path, receipt_file
from megatron_resume.checkpoint.records import Launch, Moment, Request
from megatron_resume.cli import main
from megatron_resume.errors import ConfigError, DamagedError, MismatchError, ResumeError
from megatron_resume.resume.choose import Fresh, Outcome, Resume, choose
from support import PROGRAMS
from support.chatlearn_files import TRACKER, ChatLearnJob
from support.job_on_disk import contents
from support.pool import PLAIN, Pool, run

LAUNCH = Launch(job="job", restart=0, counts=False, host="node0", pid=1, boot="", started="")


@pytest.fixture
def job(tmp_path: Path) -> ChatLearnJob:
    """Two steps of two replicas, all whole."""
    job = ChatLearnJob(tmp_path / "job")
    job.save(2)
    job.save(4)
    return job


@pytest.fixture
def new(tmp_path: Path) -> Path:
    return tmp_path / "new" / "data_checkpoint"


def imported(job: ChatLearnJob, new: Path, step: int | None = None, model_iteration: int | None = None) -> Chosen:
    chosen, name = import_chatlearn(job.data, job.models, new, step, model_iteration)
    assert name == PointName(chosen.iteration, 1)
    return chosen


def next_start(new: Path, roles: tuple[str, ...] = ("policy", "value")) -> Outcome:
    return choose(read_folder(new), Request(), LAUNCH, lambda name: read_point(new, name, roles))


def test_the_next_start_goes_on_with_chatlearns_next_episode(job: ChatLearnJob, new: Path) -> None:
    before = contents(job.base)
    imported(job, new)
    outcome = next_start(new)
    assert isinstance(outcome, Resume)
    assert outcome.point.name == PointName(4, 1)
    assert outcome.point.data.progress == Moment(episode=2, consumed_samples=32)
    assert outcome.point.directories == {role: Path(os.path.realpath(path)) for role, path in job.models.items()}
    assert contents(job.base) == before


def test_what_chatlearn_does_not_say_is_not_in_the_files(job: ChatLearnJob, new: Path) -> None:
    imported(job, new)
    point = point_path(new, PointName(4, 1))
    receipt = (point / receipt_file("policy")).read_text()
    unknown = ("consumed_train_samples", "scheduler_steps", "versions", "arguments")
    assert not any(name in receipt for name in unknown)
    assert "tracked" not in (point / DATA).read_text()


def test_two_replicas_or_four_leave_the_same_state(tmp_path: Path) -> None:
    states = []
    for replicas in (2, 4):
        job = ChatLearnJob(tmp_path / str(replicas))
        job.save(4, replicas)
        new = tmp_path / f"new{replicas}"
        imported(job, new)
        outcome = next_start(new)
        assert isinstance(outcome, Resume)
        states.append((outcome.point.data.progress, sorted(os.listdir(outcome.point.path))))
    assert states == [(Moment(episode=2, consumed_samples=32), [COMMITTED, DATA, "policy.json", "value.json"])] * 2


def test_a_job_of_one_trained_role_needs_no_value(tmp_path: Path, new: Path) -> None:
    job = ChatLearnJob(tmp_path / "job", roles=("policy",))
    job.save(2)
    imported(job, new)
    assert isinstance(next_start(new, roles=("policy",)), Resume)


def test_metas_of_chatlearns_first_release_have_no_data_ratio(job: ChatLearnJob, new: Path) -> None:
    for replica in (0, 1):
        meta = job.meta(4)
        del meta["data_ratio"]
        job.meta_file(replica, 4).write_bytes(pickle.dumps(meta, 0))
    assert imported(job, new).moment == Moment(episode=2, consumed_samples=32)


def test_the_models_may_have_numbers_of_their_own(job: ChatLearnJob, new: Path) -> None:
    for role, folder in job.models.items():
        job.save_model(role, 96)
        shutil.rmtree(folder / "iter_0000004")
    with pytest.raises(MismatchError, match="policy has no such model"):
        imported(job, new)
    chosen = imported(job, new, model_iteration=96)
    assert (chosen.step, chosen.iteration, chosen.moment.consumed_samples) == (4, 96, 32)


def killed_after_policys_save(job: ChatLearnJob) -> None:
    job.save_model("policy", 6)


def killed_before_the_data(job: ChatLearnJob) -> None:
    job.save_model("policy", 6)
    job.save_model("value", 6)


def killed_within_the_data(job: ChatLearnJob) -> None:
    killed_before_the_data(job)
    job.save_replica(0, 6)


def replica_1_at_sample_0(job: ChatLearnJob) -> None:
    job.save_replica(1, 4, consumed_samples=0, episode=0)


def torn_meta(job: ChatLearnJob) -> None:
    os.truncate(job.meta_file(1, 4), 20)


def meta_of(**changes: object) -> Callable[[ChatLearnJob], None]:
    def write(job: ChatLearnJob) -> None:
        for replica in (0, 1):
            job.save_replica(replica, 4, **changes)

    return write


def tracker(text: str, role: str | None = None) -> Callable[[ChatLearnJob], None]:
    return lambda job: ((job.models[role] if role else job.data) / TRACKER).write_text(text) and None


def without(path: str) -> Callable[[ChatLearnJob], None]:
    def remove(job: ChatLearnJob) -> None:
        target = job.base / path
        shutil.rmtree(target) if target.is_dir() else target.unlink()

    return remove


def linked_replica(job: ChatLearnJob) -> None:
    folder = job.meta_file(0, 4).parent
    folder.rename(job.base / "elsewhere")
    folder.symlink_to(job.base / "elsewhere")


def linked_shard(job: ChatLearnJob) -> None:
    shard = job.models["policy"] / "iter_0000004" / "__0_0.distcp"
    shard.rename(job.base / "elsewhere")
    shard.symlink_to(job.base / "elsewhere")


def a_fifo_in_the_model(job: ChatLearnJob) -> None:
    os.mkfifo(job.models["value"] / "iter_0000004" / "__1_0.distcp")


def a_fifo_for_the_meta(job: ChatLearnJob) -> None:
    job.meta_file(0, 4).unlink()
    os.mkfifo(job.meta_file(0, 4))


def zarr(job: ChatLearnJob) -> None:
    (job.models["value"] / "iter_0000004" / "metadata.json").write_text('{"sharded_backend": "zarr"}')


DATA_AT, POLICY_AT, VALUE_AT = "data_checkpoint_of_chatlearn", "checkpoints/policy", "checkpoints/value"
REFUSALS: dict[str, tuple[Callable[[ChatLearnJob], object], type[ResumeError], str]] = {
    "killed after policy's save, before value's": (
        killed_after_policys_save,
        MismatchError,
        r"the tracker of policy is at 6, the data is of iteration 4\n"
        r"  data    saved 2 \(replica 0, 1\), 4 \(replica 0, 1\); tracker 4\n"
        r"  policy  saved 2, 4, 6; tracker 6\n"
        r"  value   saved 2, 4; tracker 4\n"
        r"name the step with --step, such as --step 4;",
    ),
    "killed after both models, before the data": (killed_before_the_data, MismatchError, "tracker of policy is at 6"),
    "killed after the data of replica 0": (
        killed_within_the_data,
        DamagedError,
        r"step 6 lacks \(replica 1\), which saved other steps\n.* 6 \(replica 0\); tracker 6\n",
    ),
    "replicas disagree": (
        replica_1_at_sample_0,
        DamagedError,
        r"the replicas of step 4 disagree:\n"
        r"  replica  episode  train_iteration  consumed_samples  sample_per_episode  data_ratio\n"
        r"  0        1        4                32                16                  None\n"
        r"  1        0        4                0                 16                  None\n"
        r"(.*\n){3}name the step with --step, such as --step 2;",
    ),
    "torn meta": (torn_meta, DamagedError, "replica1_step4/meta.pkl is no pickle of plain values"),
    "meta missing": (without(f"{DATA_AT}/replica0_step4/meta.pkl"), DamagedError, "meta.pkl is missing"),
    "meta of another step": (meta_of(train_iteration=6), DamagedError, "step 4 is of train_iteration 6"),
    "meta lacks a number": (
        lambda job: job.meta_file(0, 4).write_bytes(pickle.dumps({"episode": 1})),
        DamagedError,
        "missing required field `train_iteration`",
    ),
    "meta holds a key of a later ChatLearn": (meta_of(seed=1), DamagedError, "unknown field `seed`"),
    "negative samples": (meta_of(consumed_samples=-1), DamagedError, "consumed_samples"),
    "samples beyond any data": (meta_of(consumed_samples=1 << 70), DamagedError, "consumed_samples"),
    "an episode after which there is no number": (meta_of(episode=(1 << 53) - 1), DamagedError, "episode"),
    "a replica's folder is a link": (linked_replica, DamagedError, "replica0_step4 is a link; copy the folder itself"),
    "a name that is not UTF-8 in a model": (
        lambda job: (job.models["value"] / "iter_0000004" / os.fsdecode(b"\xff")).touch(),
        DamagedError,
        "has a name that is not UTF-8",
    ),
    "meta of absurd size": (
        lambda job: os.truncate(job.meta_file(0, 4), 1 << 20),
        DamagedError,
        "has 1048576 bytes",
    ),
    "meta is a FIFO": (a_fifo_for_the_meta, DamagedError, "is not a file"),
    "tracker truncated to nothing": (tracker(""), DamagedError, "txt is missing or damaged, so no step is the newest"),
    "tracker of 42 truncated to 4, models at 42": (
        lambda job: (job.save(42), tracker("4")(job)),
        MismatchError,
        "tracker of policy is at 42, the data is of iteration 4",
    ),
    "tracker names a step that is gone": (tracker("96"), DamagedError, "step 96 is not in"),
    "tracker gone": (without(f"{DATA_AT}/{TRACKER}"), DamagedError, "is missing or damaged"),
    "a replica gone": (without(f"{DATA_AT}/replica1_step4"), DamagedError, r"step 4 lacks \(replica 1\)"),
    "value's model gone": (without(f"{VALUE_AT}/iter_0000004"), MismatchError, "value has no such model"),
    "value's tracker behind": (
        tracker("2", "value"),
        MismatchError,
        "value's save of iteration 4 never ended: its tracker stands at 2",
    ),
    "value's tracker gone": (without(f"{VALUE_AT}/{TRACKER}"), MismatchError, "tracker of value is missing or damaged"),
    "all of value gone": (without(VALUE_AT), ConfigError, "--value-load: .* cannot be read: No such file"),
    "no step at all": (
        lambda job: (shutil.rmtree(job.data), job.data.mkdir()),
        ConfigError,
        "name the folder that is ChatLearn's data_checkpoint_path",
    ),
    "a model's shard is a link": (linked_shard, DamagedError, "__0_0.distcp is no plain file; copy the model"),
    "a FIFO among a model's files": (a_fifo_in_the_model, DamagedError, "__1_0.distcp is no plain file"),
    "a model in a format that Megatron no longer loads": (zarr, MismatchError, "is saved as 'zarr'; convert it"),
    "a folder that holds no model": (
        without(f"{POLICY_AT}/iter_0000004/metadata.json"),
        DamagedError,
        "it is no checkpoint of Megatron",
    ),
}


@pytest.mark.parametrize("what", REFUSALS)
def test_a_refusal_says_what_is_there_and_changes_nothing(job: ChatLearnJob, new: Path, what: str) -> None:
    damage, kind, message = REFUSALS[what]
    damage(job)
    before = contents(job.base)
    with pytest.raises(kind, match=message):
        imported(job, new)
    assert not new.exists()
    assert contents(job.base) == before


NAMED: dict[str, tuple[Callable[[ChatLearnJob], object], int, str]] = {
    "killed after policy's save, before value's": (killed_after_policys_save, 4, "tracker of policy is at 6"),
    "killed after both models, before the data": (killed_before_the_data, 4, "tracker of value is at 6"),
    "killed after the data of replica 0": (killed_within_the_data, 6, "step 6 lacks (replica 1)"),
    "tracker truncated to nothing": (tracker(""), 4, ""),
    "torn meta": (torn_meta, 2, "tracker of policy is at 4"),
    "an older step": (lambda job: None, 2, "tracker of value is at 4"),
    "value's tracker gone": (without(f"{VALUE_AT}/{TRACKER}"), 4, "tracker of value is missing or damaged"),
}


@pytest.mark.parametrize("what", NAMED)
def test_a_step_that_is_named_is_taken_where_data_and_models_have_it(job: ChatLearnJob, new: Path, what: str) -> None:
    damage, step, note = NAMED[what]
    damage(job)
    chosen = imported(job, new, step)
    assert (chosen.step, note in "\n".join(chosen.notes)) == (step, True)
    outcome = next_start(new)
    assert isinstance(outcome, Resume)
    assert outcome.point.data.progress == Moment(episode=step // 2, consumed_samples=step * 8)


@pytest.mark.parametrize("what", ["replicas disagree", "torn meta", "value's tracker behind", "value's model gone"])
def test_naming_a_step_overrides_no_damage(job: ChatLearnJob, new: Path, what: str) -> None:
    damage, kind, message = REFUSALS[what]
    damage(job)
    with pytest.raises(kind, match=message):
        imported(job, new, 4)


def test_hundreds_of_replicas_that_disagree_are_a_short_table(tmp_path: Path, new: Path) -> None:
    job = ChatLearnJob(tmp_path / "large")
    job.save(4, replicas=300)
    job.save_replica(299, 4, consumed_samples=16)
    with pytest.raises(DamagedError) as error:
        imported(job, new)
    _, _, most, one, *_ = str(error.value).splitlines()
    assert most.startswith("  0, 1, 2, 3, 4, 5, 6, 7 and 291 more  1        4")
    assert one.split() == ["299", "1", "4", "16", "16", "None"]


def test_a_step_that_is_not_there_is_refused_with_those_that_are(job: ChatLearnJob, new: Path) -> None:
    with pytest.raises(ConfigError, match=r"step 3 is not in .*\n  data    saved 2 .*, 4 "):
        imported(job, new, 3)


def test_samples_that_do_not_fit_the_episodes_are_noted_and_kept(job: ChatLearnJob, new: Path) -> None:
    meta_of(sample_per_episode=999)(job)
    chosen = imported(job, new)
    assert chosen.moment.consumed_samples == 32
    assert "32 samples are consumed after 2 episodes of 999" in chosen.notes[0]


def test_a_folder_with_points_or_attempts_is_refused(job: ChatLearnJob, new: Path) -> None:
    imported(job, new)
    before = contents(new)
    with pytest.raises(ConfigError, match="holds resume points of a job already; name a new folder with --to"):
        imported(job, new)
    assert contents(new) == before
    (point_path(new, PointName(4, 1)) / COMMITTED).unlink()
    with pytest.raises(ConfigError, match=r"committed nothing; remove it .* \(rm -r .*\), or name a new"):
        imported(job, new)


@pytest.mark.parametrize("place", [DATA_AT, f"{DATA_AT}/new", f"{POLICY_AT}/new"])
def test_nothing_is_written_into_the_folders_of_chatlearn(job: ChatLearnJob, place: str) -> None:
    before = contents(job.base)
    with pytest.raises(ConfigError, match="where nothing is to be changed; name another folder with --to"):
        imported(job, job.base / place)
    assert contents(job.base) == before


def test_two_roles_cannot_have_one_folder(job: ChatLearnJob, new: Path) -> None:
    models = dict.fromkeys(("policy", "value"), job.models["policy"])
    with pytest.raises(ConfigError, match="value and policy cannot have one folder"):
        import_chatlearn(job.data, models, new)


def test_the_events_of_the_import_say_that_it_ended(job: ChatLearnJob, new: Path) -> None:
    imported(job, new)
    told = read_events(events_path(new, 1, "policy"))
    assert [type(event) for event in told.events] == [Committed, Finished]


def dying(pool: Pool, place: str, *argv: str) -> subprocess.CompletedProcess[str]:
    """What the command line says that dies at a crash point, or comes to its end before."""
    words = ("-m", "megatron_resume", "import-chatlearn", *argv)
    return run(pool, PROGRAMS / "python.py", *words, environ=os.environ | {crash.VARIABLE: place}, kind=PLAIN)


def command(job: ChatLearnJob, new: Path) -> list[str]:
    models = [word for role, path in job.models.items() for word in (f"--{role}-load", str(path))]
    return [str(job.data), *models, "--to", str(new)]


PLACES = [f"{point}:{nth}" for point in crash.POINTS if point.startswith("write.") for nth in range(1, 6)]
PLACES += ["attempt.numbered", "attempt.begun", "commit.end", "event.torn", "event.end:1", "event.end:2"]


@pytest.mark.parametrize("place", PLACES)
def test_an_import_that_dies_anywhere_leaves_a_whole_point_or_none(
    job: ChatLearnJob, new: Path, place: str, torch_pool: Pool
) -> None:
    before = contents(job.base)
    done = dying(torch_pool, place, *command(job, new))
    assert (done.returncode, "SIGKILL" in done.stderr) == (-9, True), done.stderr
    outcome = next_start(new)
    committed = (point_path(new, PointName(4, 1)) / COMMITTED).exists()
    assert isinstance(outcome, Resume if committed else Fresh)
    assert contents(job.base) == before
    assert main(["import-chatlearn", *command(job, new)]) == 78, "what is left is not mixed with another import"


def test_the_crash_points_reach_beyond_the_commit(job: ChatLearnJob, new: Path, torch_pool: Pool) -> None:
    """Five files are written; a sixth would need more places."""
    assert dying(torch_pool, "write.begin:6", *command(job, new)).returncode == 0


def test_the_command_says_what_was_imported_and_how_to_go_on(
    job: ChatLearnJob, new: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["import-chatlearn", *command(job, new)]) == 0
    out = capsys.readouterr().out
    assert "imported step 4 (2 replicas agree) as iteration 4 of attempt 1" in out
    assert "next episode 2, 32 samples consumed" in out
    assert f"--data-checkpoint-path {new} --trained-roles policy,value" in out
    assert f"value: --save {job.models['value']}" in out


@pytest.mark.parametrize(("damage", "code"), [(torn_meta, 65), (killed_after_policys_save, 78)])
def test_the_exit_code_tells_damage_from_a_mismatch(
    job: ChatLearnJob, new: Path, damage: Callable[[ChatLearnJob], None], code: int
) -> None:
    damage(job)
    assert main(["import-chatlearn", *command(job, new)]) == code


def test_an_object_store_is_refused_by_name(job: ChatLearnJob, capsys: pytest.CaptureFixture[str]) -> None:
    argv = [*command(job, Path("x"))[:-1], "s3://bucket/data"]
    assert main(["import-chatlearn", *argv]) == 78
    assert "s3 URL" in capsys.readouterr().err


def test_replicas_whose_mixing_ratio_is_not_a_number_agree_all_the_same(job: ChatLearnJob, new: Path) -> None:
    for replica in (0, 1):
        job.save_replica(replica, 4, data_ratio=float("nan"))
    imported(job, new)
    assert isinstance(next_start(new), Resume)
