"""The example's entry with one thing spoiled, named by `TAMPER`: to show that the tests would see it.

Executed by the job server in place of train_rlhf.py. Everything spoiled here is restored, or done, by an
untouched start.
"""

import atexit
import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

ENTRY = Path(__file__).resolve().parents[2] / "examples" / "megatron" / "entry" / "train_rlhf.py"
sys.path.insert(0, str(ENTRY.parent))

import megatron.training.training as training  # noqa: E402
import msgspec  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402

import megatron_resume.auto  # noqa: E402
from megatron_resume.adapter import api, loading, ranks, rng  # noqa: E402


def after_each_load(spoil):
    """Run `spoil(optimizer, scheduler)` when a trained role was loaded."""
    load = training.load_checkpoint

    def load_and_spoil(model, optimizer, scheduler, *args, **kwargs):
        result = load(model, optimizer, scheduler, *args, **kwargs)
        if optimizer is not None:
            spoil(optimizer, scheduler)
        return result

    training.load_checkpoint = load_and_spoil


def optimizer():
    def forget(optimizer, scheduler):
        for state in optimizer.optimizer.state.values():
            state["exp_avg"].zero_()

    after_each_load(forget)


def scheduler():
    def forget(optimizer, scheduler):
        scheduler.num_steps = 0
        scheduler.step(0)

    after_each_load(forget)


def schedule_replayed():
    """As in frameworks that load the optimizer and forget its scheduler: seen by the audit."""
    from megatron.core.optimizer_param_scheduler import OptimizerParamScheduler

    OptimizerParamScheduler.load_state_dict = lambda self, state: None


def random_numbers():
    def seed_as_if_fresh(states):
        from rlhf.seed_checkpoints import seed_everything

        seed_everything(1234)

    rng.restore = seed_as_if_fresh


def our_random_numbers():
    """Megatron's own, of one data-parallel rank, are then all there is."""
    loading.restore_rng = lambda current: None


def kl_coefficient():
    from rlhf.ppo import AdaptiveKLController

    AdaptiveKLController.load_state_dict = lambda self, state: None


def data_position():
    from megatron_resume.data import EpisodeSampler

    load = EpisodeSampler.load_state_dict

    def load_and_go_back(self, state, **choice):
        change = load(self, state, **choice)
        self.seek(0)
        return change

    EpisodeSampler.load_state_dict = load_and_go_back


def save_before_advance():
    """The order of a careless loop: saves come before the episode is said to be done."""
    from rlhf.job import Job

    import megatron_resume

    due = []
    save = Job._save_if_due
    Job._save_if_due = lambda self, episodes_done: None

    def save_then_advance(*, samples):
        save(due[0], 10**9)
        api.advance(samples=samples)

    run = Job.run
    Job.run = lambda self: (due.append(self), run(self))[1]
    megatron_resume.advance = save_then_advance


def save_before_advance_with_experience():
    from rlhf.job import Job

    import megatron_resume

    class Buffer:
        def state_dict(self):
            return {"tokens": torch.arange(6, dtype=torch.bfloat16), "rows": np.arange(3)}

        def load_state_dict(self, state):
            assert state["tokens"].dtype == torch.bfloat16
            line = f"experience restored: {state['tokens'].tolist()} {state['rows'].tolist()} {api.progress()}\n"
            os.write(1, line.encode())  # in one piece, beside the other rank's

    save_before_advance()
    run = Job.run

    def tracked_run(self):
        megatron_resume.track("experience", Buffer(), experience=True)
        return run(self)

    Job.run = tracked_run


def loop_starts_at_0():
    """Episodes and iterations are counted from the beginning, whatever was loaded."""
    from rlhf import job

    load = job.load_models

    def load_and_forget(args):
        models = load(args)
        for built in models.values():
            built.args.iteration = 0
        return models

    job.load_models = load_and_forget
    megatron_resume.progress = lambda: msgspec.structs.replace(api.progress(), episode=0)


def saves_twice():
    from rlhf import job

    save = job.save_checkpoint
    job.save_checkpoint = lambda *args, **kwargs: (save(*args, **kwargs), save(*args, **kwargs))


def tracks_its_rows():
    """A position of the script's own in its data."""
    from rlhf.job import Job

    class Rows:
        position = 0

        def state_dict(self):
            return {"position": self.position}

        def load_state_dict(self, state):
            self.position = state["position"]

    def run_with_rows(self):
        rows = Rows()
        megatron_resume.track("rows", rows)
        os.write(1, f"begins at row {rows.position} {api.progress()}\n".encode())  # in one piece

        def advance(*, samples):
            rows.position += samples
            api.advance(samples=samples)

        megatron_resume.advance = advance
        return run(self)

    run, Job.run = Job.run, run_with_rows


def draws_in_another_order():
    from megatron_resume.data import keys

    keys._DOMAIN = b"megatron_resume order 2\0"


def draws_and_never_counts():
    """As a loop of one's own that tracks its sampler, and knows neither progress nor advance."""
    from rlhf import update

    def train_without_counting(built, *args, **kwargs):
        counted = built.args.consumed_train_samples
        loss = train(built, *args, **kwargs)
        built.args.consumed_train_samples = counted
        return loss

    train, update._train = update._train, train_without_counting
    megatron_resume.progress = api.Progress
    megatron_resume.advance = lambda *, samples: None


def draws_from_a_loader():
    """As a script whose prompts come from torchdata, each rank with a part of its own."""
    from rlhf.job import Job
    from torchdata.stateful_dataloader import StatefulDataLoader

    def run_with_loader(self):
        rank = torch.distributed.get_rank()
        loader = StatefulDataLoader(range(rank * 100, rank * 100 + 100), batch_size=4, num_workers=1)
        megatron_resume.track("loader", loader)
        batches = iter(loader)

        def advance(*, samples):
            share = samples // torch.distributed.get_world_size()
            rows = [row for _ in range(share // 4) for row in next(batches).tolist()]
            drawn = f"rank {rank} drew in episode {api.progress().episode}: {' '.join(map(str, rows))}."
            os.write(1, f"{drawn}\n".encode())  # in one piece
            api.advance(samples=samples)

        megatron_resume.advance = advance
        return run(self)

    run, Job.run = Job.run, run_with_loader


def trusts_every_format():
    from megatron_resume.adapter import formats

    formats._has_fused_adam = lambda: True


def adam_without_step():
    """As with Transformer Engine or Apex, whose Adam keeps no step in the state of a parameter."""
    from megatron.core.optimizer.distrib_optimizer import DistributedOptimizer

    def set_with_step(self, param, tensors):
        set_states(self, param, {"step": None, **tensors})

    set_states = DistributedOptimizer._set_main_param_and_optimizer_states
    DistributedOptimizer._set_main_param_and_optimizer_states = set_with_step
    trusts_every_format()


def notes_what_is_durable():
    """Appends a line for each fsync to the file DURABLE: the inode, then a folder's names or a file's size."""
    original = os.fsync

    def fsync(descriptor):
        original(descriptor)
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        holds = sorted(os.listdir(path)) if path.is_dir() else os.fstat(descriptor).st_size
        with open(os.environ["DURABLE"], "a") as file:
            file.write(json.dumps([os.fstat(descriptor).st_ino, holds]) + "\n")

    os.fsync = fsync


def sums_no_gradients():
    """As in a loop that calls Megatron's train_step and does not know what Megatron's train() sets before."""
    from rlhf import roles

    roles._prepare_training = lambda built: None


def never_saves():
    from rlhf.job import Job

    Job._save_if_due = lambda self, episodes_done: None


def changes_finetune_late():
    from rlhf import roles

    arguments_of = roles.arguments_of

    def spoiled(args):
        args.finetune = True
        return arguments_of(args)

    roles.arguments_of = spoiled


def forgets_to_load_value():
    from rlhf import roles

    build = roles.build_and_load

    def build_without_loading(base, role):
        setup = roles.setup_model_and_optimizer
        if role == "value":
            roles.setup_model_and_optimizer = lambda **named: without_load(setup, **named)
        try:
            return build(base, role)
        finally:
            roles.setup_model_and_optimizer = setup

    def without_load(setup, **arguments):
        from megatron.training import get_args

        get_args().load, get_args().pretrained_checkpoint = None, None
        return setup(**arguments)

    from rlhf import start

    start.build_and_load = build_without_loading


def loads_nothing_and_commits_at_the_end():
    """Models begin with weights of the script's own, and a slow disk leaves every commit to the process's end."""
    from megatron.training import get_args
    from rlhf import roles

    from megatron_resume.adapter.writer import Writer

    setup, wait, write = roles.setup_model_and_optimizer, Writer.wait, Writer._write
    leaving = threading.Event()

    def setup_without_load(**arguments):
        get_args().load = get_args().pretrained_checkpoint = None
        return setup(**arguments)

    roles.setup_model_and_optimizer = setup_without_load
    Writer.wait = lambda self: (leaving.set(), wait(self))[1]
    Writer._write = lambda self, *save: (leaving.wait(), write(self, *save))[1]


def another_start_takes_the_names_and_withdraws():
    """As one with --take-over does that is refused when it has fenced policy already."""
    from rlhf import job

    from megatron_resume.adapter import session
    from megatron_resume.checkpoint import fencing

    save = job.save_checkpoint

    def lose_the_name_before(iteration, *args, **kwargs):
        if iteration == 4 and ranks.rank() == 0:
            fencing.take_names(session.current().root, "policy", before=2)
        return save(iteration, *args, **kwargs)

    job.save_checkpoint = lose_the_name_before


def own_train_step():
    """A loop with a train step of its own, in which no hook is."""
    from rlhf import update

    update.training = SimpleNamespace(train_step=training.train_step.__wrapped__)


def own_train_step_saves_before_advance():
    own_train_step()
    save_before_advance()


def own_train_step_forgets_to_load_value():
    own_train_step()
    forgets_to_load_value()


def names_no_role():
    import megatron_resume

    with_role = megatron_resume.role_args

    def without_role(role, args):
        args = with_role(role, args)
        args.resume_role = role if role in ("reference", "reward") else None
        return args

    megatron_resume.role_args = without_role


def asks_too_early():
    api.progress()


def a_save_fails_and_is_repeated():
    """As scripts do that want to survive a full disk for a moment."""
    from megatron.core import dist_checkpointing
    from rlhf import job

    write, save = dist_checkpointing.save, job.save_checkpoint
    calls = []

    def disk_full_once(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        return write(*args, **kwargs)

    def try_twice(*args, **kwargs):
        try:
            return save(*args, **kwargs)
        except OSError:
            return save(*args, **kwargs)

    dist_checkpointing.save, job.save_checkpoint = disk_full_once, try_twice


def saves_value_never():
    from rlhf import job

    job.TRAINED = ("policy",)


def saves_copies_too():
    """The best so far to another folder, the weights before training, and now and then one not to keep."""
    from megatron.training import get_args
    from rlhf import job

    save = job.save_checkpoint

    def save_everywhere(iteration, *args, **kwargs):
        megatron_args = get_args()
        regular = megatron_args.save
        if iteration == 2:
            save(0, *args, **kwargs)
        megatron_args.save = f"{regular}_best"
        save(iteration, *args, **kwargs)
        megatron_args.save = regular
        save(iteration, *args, **kwargs)
        megatron_args.non_persistent_ckpt_type = "global"
        save(iteration + 1, *args, non_persistent_ckpt=True, **kwargs)

    job.save_checkpoint = save_everywhere


def fails_in_the_second_episode():
    """On rank 0; the other one waits for it, so that rank 0 is the first to end also on a busy machine."""
    from rlhf.job import Job

    begin = Job._episode

    def episode(self, number, report):
        if number == 1 and not api.progress().resume_training:
            if ranks.rank() != 0:
                time.sleep(3600)
            raise RuntimeError("the network is down")
        begin(self, number, report)

    Job._episode = episode


def events_cannot_be_written():
    """In the place of the one file of its kind stands a FIFO, on whose reader one could wait for ever."""
    from megatron_resume.adapter import life

    begin = life.begin

    def begin_with_a_fifo(path):
        os.mkfifo(path)
        begin(path)

    life.begin = begin_with_a_fifo


def does_not_look_for_checkpoints():
    from rlhf import roles

    roles._refuse_absent_checkpoint = lambda *args: None


def holds_a_writer():
    """The process that writes policy's shard of iteration 4 stands still before it opens the file."""
    from megatron.core.dist_checkpointing.strategies import filesystem_async
    from rlhf import job

    report = Path(os.environ["HELD"])

    def hold_then_open(path, mode):
        if "iter_0000004" not in str(path) or not Path(path).name.startswith("__0_") or report.exists():
            return open(path, mode)
        os.setsid()  # out of reach of whoever ends the job's session,
        ctypes.CDLL(None).prctl(1, 0)  # and of the death of its parent
        with report.open("w", buffering=1) as told:
            told.write(f"{os.getpid()}\n")
            os.kill(os.getpid(), signal.SIGSTOP)
            try:
                return open(path, mode)
            except OSError as error:
                told.write(f"{type(error).__name__}\n")
                raise
            finally:
                told.write("went on\n")

    def save_and_wait(iteration, *args, **kwargs):
        result = save(iteration, *args, **kwargs)
        while iteration == 4 and not report.exists():  # else this rank may be dead before its worker has anything
            time.sleep(0.02)
        return result

    save, job.save_checkpoint = job.save_checkpoint, save_and_wait
    filesystem_async.open = hold_then_open


def rests_before_its_second_save():
    """Long enough for a lease to be renewed."""
    from rlhf import job

    def save_rested(iteration, *args, **kwargs):
        if iteration == 4:
            time.sleep(1)
        return save(iteration, *args, **kwargs)

    save, job.save_checkpoint = job.save_checkpoint, save_rested


def storage_fails_at_the_second_save():
    """What `STORAGE` names is done to the file system `AT` while iteration 4 is saved, and undone when it is over.

    With `FOR_GOOD` nothing is undone.
    """
    from rlhf import job

    from megatron_resume.adapter import saving

    if os.environ["RANK"] != "0":
        return
    faults = {"full": (fill, empty), "read-only": (remounted("ro"), remounted("rw"))}
    begin, end = faults[os.environ["STORAGE"]]

    def save_on_bad_storage(iteration, *args, **kwargs):
        if iteration == 4 and save.count == 0:
            begin(Path(os.environ["AT"]))
        save.count += iteration == 4
        result = original(iteration, *args, **kwargs)
        if save.count == 2 and "FOR_GOOD" not in os.environ:
            saving._saves.writer.wait()
            end(Path(os.environ["AT"]))
            save.count = 3
        return result

    save, original, job.save_checkpoint = SimpleNamespace(count=0), job.save_checkpoint, save_on_bad_storage


def fill(folder):
    with suppress(OSError), open(folder / "filler", "wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def empty(folder):
    (folder / "filler").unlink()


def remounted(mode):
    return lambda folder: subprocess.run(["mount", "-o", f"remount,{mode}", str(folder)], check=True)


def hangs():
    """Rank `HANG_RANK` (1) ends or hangs as `HANG` says, in the first `HANG_TIMES` (1) lives.

    It does so before train step `HANG_AT` of the life: by default that of policy in the third iteration, after the
    first save. The file `HUNG` has a byte for each of these lives.
    """
    how, hung = os.environ["HANG"], Path(os.environ["HUNG"])
    times = hung.stat().st_size if hung.exists() else 0
    if os.environ["RANK"] != os.environ.get("HANG_RANK", "1") or times >= int(os.environ.get("HANG_TIMES", "1")):
        return

    def hang():
        with hung.open("ab") as file:
            file.write(b".")
        HANGS[how]()

    if how == "start":
        hang()
    if how == "exit":
        atexit.register(hang)
        return
    train_step, calls = training.train_step, []

    def step_or_hang(*args, **kwargs):
        calls.append(1)
        if len(calls) == int(os.environ.get("HANG_AT", "5")):
            hang()
        return train_step(*args, **kwargs)

    training.train_step = step_or_hang


def for_ever():
    while True:
        time.sleep(3600)


def hold_the_interpreter():
    mutex, native = ctypes.create_string_buffer(64), ctypes.PyDLL(None)  # unlike CDLL, PyDLL lets no other thread run
    native.pthread_mutex_lock(mutex)
    native.pthread_mutex_lock(mutex)


def kill(*pids):
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    for_ever()


def parent(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def pids_of_ranks():
    """All on this node, this one last."""
    agent = os.getppid()
    found = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]
    return sorted((pid for pid in found if parent(pid) == agent), key=lambda pid: pid == os.getpid())


HANGS = {
    "start": for_ever,
    "exit": for_ever,
    "sleep": for_ever,
    "lock": hold_the_interpreter,
    "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "kill": lambda: kill(os.getpid()),
    "all": lambda: kill(*pids_of_ranks()),
    "agent": lambda: kill(os.getppid()),
    "launch": lambda: kill(parent(parent(os.getppid()))),
    "error": lambda: sys.exit(1),
}


def is_told_to_end():
    """SIGTERM comes to the ranks `TOLD` in their second "train" step or "rollout", as `TOLD_AT` says."""
    from rlhf import job

    if "NEVER_ASKS" in os.environ:
        job.megatron_resume.should_stop = lambda: False
    if os.environ["RANK"] not in os.environ["TOLD"].split(","):
        return
    name = {"train": "train_policy", "rollout": "roll_out"}[os.environ["TOLD_AT"]]
    original, calls = getattr(job, name), []

    def told(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
            if os.environ["TOLD_AT"] == "rollout":
                time.sleep(float(os.environ.get("ROLLOUT_S", "0")))
        return original(*args, **kwargs)

    setattr(job, name, told)


def tells_where_it_is():
    """Where `TOLD_AT` names it says so in the folder `THERE`, and waits for `go_on`; once."""
    from rlhf import job

    name, there = {"train": "train_policy", "rollout": "roll_out"}[os.environ["TOLD_AT"]], Path(os.environ["THERE"])
    original, calls = getattr(job, name), []

    def tell(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            told = there / f"rank{os.environ['RANK']}"
            new = there / f"new{os.environ['RANK']}"
            new.write_text(str(os.getpid()))
            new.rename(told)
            while not (there / "go_on").exists():
                time.sleep(0.02)
            time.sleep(3600 if name == "roll_out" else 0)
        return original(*args, **kwargs)

    setattr(job, name, tell)


def draws_with_workers_and_tells():
    """The same, with prompts that two workers of a DataLoader bring; asked for one when it goes on."""
    from rlhf import job
    from torch.utils.data import DataLoader

    drawn = []
    original = job.roll_out

    def roll_out(*args, **kwargs):
        if not drawn:
            drawn.append(iter(DataLoader(range(10**6), batch_size=4, num_workers=2)))
        next(drawn[0])
        return original(*args, **kwargs)

    job.roll_out = roll_out
    tells_where_it_is()


def steps_take_a_second():
    """Long enough for a line of progress. With `STUCK` the watch has found a rank stuck after the second."""
    from megatron_resume.checkpoint.failures import STACKS, life_of, life_path

    train_step, calls = training.train_step, []

    def slow(*args, **kwargs):
        calls.append(1)
        time.sleep(1.1)
        if len(calls) == 3 and "STUCK" in os.environ:
            root = Path(os.environ["STUCK"])
            (life_path(root, api.progress().attempt, life_of(os.environ)) / STACKS).mkdir(exist_ok=True)
        return train_step(*args, **kwargs)

    training.train_step = slow


def sleeps_while_another_fails():
    """In the second rollout; the sleep stands for a collective that waits for the dead."""
    from rlhf import job

    roll_out, calls = job.roll_out, []

    def second_fails(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            sys.exit(7) if os.environ["RANK"] == "1" else time.sleep(3600)
        return roll_out(*args, **kwargs)

    job.roll_out = second_fails


def compares_no_configuration():
    from megatron_resume.adapter import configuration

    configuration.compare = lambda current, role, args: None


def megatron_is_a_checkout():
    """Its sources lie on PYTHONPATH, and no wheel of it is installed."""
    from importlib import metadata

    version = metadata.version

    def without_megatron(package):
        if package == "megatron-core":
            raise metadata.PackageNotFoundError(package)
        return version(package)

    metadata.version = without_megatron


def nothing():
    pass


if __name__ == "__main__":
    globals()[os.environ["TAMPER"]]()
    sys.argv[0] = str(ENTRY)
    exec(compile(ENTRY.read_text(), str(ENTRY), "exec"), {"__name__": "__main__", "__file__": str(ENTRY)})
