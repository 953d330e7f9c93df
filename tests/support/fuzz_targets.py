"""What reads files that others may have written: each target takes any bytes, and ends without a traceback.

A target raises nothing but AssertionError, and that where a reader breaks its promise. Some targets decide by the first
byte what the rest is meant for.
"""

import functools
import io
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from megatron_resume.checkpoint import arrays as codec
from megatron_resume.checkpoint import plain_pickle, torch_metadata
from megatron_resume.checkpoint.chatlearn import ReplicaMeta
from megatron_resume.checkpoint.endings import process_ends
from megatron_resume.checkpoint.events import read_events
from megatron_resume.checkpoint.failures import Failure, failures_path
from megatron_resume.checkpoint.folder import read_folder
from megatron_resume.checkpoint.layout import ATTEMPTS, COMMITTED, DATA, START, PointName, parse_point, point_path
from megatron_resume.checkpoint.leases import Lease, lease_path
from megatron_resume.checkpoint.nesting import is_deeper
from megatron_resume.checkpoint.records import (
    MAX_NESTING,
    DataCheckpoint,
    Manifest,
    Receipt,
    Record,
    Start,
    decode,
    encode,
)
from megatron_resume.cli.life import story_of
from megatron_resume.cli.page import page
from megatron_resume.cli.status import examine
from megatron_resume.data import EpisodeSampler, JsonlPrompts
from megatron_resume.data.line_index import BadIndex, Source, build_index, open_index
from megatron_resume.data.lines import silent
from megatron_resume.errors import ConfigError, DamagedError, PromptError, ResumeError
from megatron_resume.resume.choose import Fresh, Resume
from megatron_resume.shown import shown_in_json

from .forger import Forger
from .job_on_disk import JobOnDisk

Target = Callable[[bytes], None]
KINDS: tuple[type[Record], ...] = (Start, Receipt, DataCheckpoint, Manifest, Lease)
NEWEST = PointName(4, 1)


class _Stage:
    """A job of two points; what a target changed is put back before the next one."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="fuzz")
        base = Path(self._folder.name)
        self.job, self._spare = JobOnDisk(base / "job"), base / "spare"
        attempt = self.job.attempt()
        self.job.save(attempt, 2)
        self.job.save(attempt, NEWEST.iteration)
        shutil.copytree(self.job.root, self._spare)

    def restored(self) -> JobOnDisk:
        shutil.rmtree(self.job.root)
        shutil.copytree(self._spare, self.job.root)
        return self.job


_stage: _Stage | None = None


def _job() -> JobOnDisk:
    global _stage
    _stage = _stage or _Stage()
    return _stage.restored()


def record(data: bytes) -> None:
    """Any record: what is read is bounded, and is written as it was read."""
    kind = KINDS[data[0] % len(KINDS)] if data else Start
    try:
        read = decode(data[1:], kind, "it")
    except DamagedError as error:
        assert str(error).isprintable()
        return
    assert not any(is_deeper(getattr(read, field), MAX_NESTING) for field in read.anything)
    assert decode(encode(read), kind, "it") == read


def pickled(data: bytes) -> None:
    """ChatLearn's `meta.pkl`."""
    with suppress(DamagedError, msgspec.ValidationError):
        msgspec.convert(plain_pickle.load(data, "it"), ReplicaMeta)


def metadata(data: bytes) -> None:
    """What torch writes beside the tensors of a model."""
    try:
        found = torch_metadata.contents_in(data, "it")
    except DamagedError as error:
        assert str(error).isprintable()
        return
    assert all(isinstance(text, str) for entries in found.values() for text in entries.values())


def tracked(data: bytes) -> None:
    """Tracked state with arrays beside it."""
    with suppress(DamagedError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        value = msgspec.json.decode(data)
        if not is_deeper(value, MAX_NESTING):
            _unpacked(value)


def _unpacked(value: Any) -> None:
    def tensor(array: Any, meta: dict[str, Any]) -> Any:
        return array.reshape(meta["shape"])

    codec.unpack(value, {"a": codec.np.zeros(4), "b": codec.np.zeros((2, 2), dtype="u1")}, tensor)


def safetensors(data: bytes) -> None:
    with suppress(DamagedError):
        codec.load(data, "it")


def name(data: bytes) -> None:
    """The name of a folder in the data checkpoint folder."""
    text = os.fsdecode(data)
    point = parse_point(text)
    assert point is None or point.folder == text


def file_of_a_job(data: bytes) -> None:
    """One file that a start or `status` reads, in a job that is whole otherwise; a point's is signed anew."""
    job = _job()
    point = Forger(job, NEWEST)
    places: tuple[Callable[[bytes], object], ...] = (
        lambda content: point.write(COMMITTED, content),
        lambda content: point.write("policy.json", content),
        lambda content: point.write(DATA, content),
        (job.root / ATTEMPTS / "0001" / START).write_bytes,
        lease_path(job.root, 1, "policy").write_bytes,
        job.events(1).write_bytes,
        lambda content: _write_failure(job, content),
    )
    places[data[0] % len(places) if data else 0](data[1:])
    _assert_readers_hold(job)


def _write_failure(job: JobOnDisk, content: bytes) -> None:
    folder = failures_path(job.root, 1, "")
    folder.mkdir()
    (folder / "rank_0.json").write_bytes(content)


def _assert_readers_hold(job: JobOnDisk) -> None:
    _assert_page_holds(job)
    read_events(job.events(1))
    process_ends(job.root, 1, job.roles)
    with suppress(ConfigError):
        outcome = job.choose()
        assert not isinstance(outcome, Fresh), "a commit is visible"
        assert all(str(passed).isprintable() for passed in outcome.passed_over)
        if isinstance(outcome, Resume):
            assert all(job.base in path.parents for path in outcome.point.models.values()), "it leads out"
            assert outcome.point.path == point_path(job.root, outcome.point.name)
    text = shown_in_json(msgspec.json.encode(examine(job.root)).decode())
    assert text.isprintable()
    msgspec.json.decode(text)


def sampler(data: bytes) -> None:
    """The state of an EpisodeSampler: one that is refused has moved nothing, and one that is taken goes on."""
    with suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        state = msgspec.json.decode(data)
        made = _sampler([60, 70])
        before = made.state_dict()
        try:
            made.load_state_dict(state, on_dataset_change="append")
        except ResumeError:
            assert made.state_dict() == before
        else:
            made.take(30)
            made.load_state_dict(made.state_dict())


def _sampler(sizes: list[int]) -> EpisodeSampler:
    return EpisodeSampler(sizes, samples_per_episode=10, described={"tokenizer": "llama"})


def index(data: bytes) -> None:
    """An index of a prompt file: no row lies outside of the file."""
    path = Path(_stage_of_prompts().name, "index")
    path.write_bytes(data)
    with suppress(BadIndex):
        found = open_index(path, PROMPTS)
        for row in range(len(found)):
            begin, end = found.span(row)
            assert 0 <= begin < end <= PROMPTS.size and found.line(row) > 0


def prompts(data: bytes) -> None:
    """A prompt file: each row is a text, or refused by name."""
    folder = Path(_stage_of_prompts().name)
    (folder / "prompts.jsonl").write_bytes(data)
    try:
        found = JsonlPrompts(folder / "prompts.jsonl", cache_dir=folder / "cache")
        assert all(found)
        assert found.digest(len(found))
    except PromptError as error:
        assert all(line.isprintable() for line in str(error).split("\n"))
    shutil.rmtree(folder / "cache", ignore_errors=True)


PROMPT_FILE = b'{"prompt": "a"}\r\n\n{"prompt": "b", "id": [1, 2]}\n'
PROMPTS = Source("of no path", len(PROMPT_FILE), 1, 2)


@functools.cache
def _stage_of_prompts() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="fuzz")


def _assert_page_holds(job: JobOnDisk) -> None:
    """What `report` draws of it is a page, whatever lies there."""
    with suppress(ConfigError):
        written = page(story_of(read_folder(job.root)), name="job", trace=None, missing="", made_s=0.0)
        assert written.replace("\n", "").isprintable()


TARGETS: dict[str, Target] = {
    target.__name__: target
    for target in (record, pickled, metadata, tracked, safetensors, name, file_of_a_job, sampler, index, prompts)
}


def _failure() -> bytes:
    return encode(
        Failure(
            rank=0,
            host="node0",
            pid=1,
            job="job",
            attempt=1,
            after=1,
            how="hang",
            error="hang",
            message="no progress",
            exit_code=201,
            signal=None,
            fatal=False,
            phase="train",
            iteration=7,
            silent_s=60.0,
            trained_s=90.5,
            loading=None,
            versions={"torch": "2.13"},
            kernel=None,
            time_s=1767225900.25,
        )
    )


def _metadata() -> Any:
    import torch
    from torch.distributed.checkpoint.metadata import (
        BytesStorageMetadata,
        Metadata,
        TensorProperties,
        TensorStorageMetadata,
    )

    weight = TensorStorageMetadata(TensorProperties(dtype=torch.bfloat16), torch.Size([4, 2]), [])
    return Metadata({"optimizer.state.exp_avg.weight": weight, "rng_state/shard_0_1": BytesStorageMetadata()})


def seeds() -> dict[str, list[bytes]]:
    """Inputs that each target takes without refusing, to begin from."""
    import pickle

    earlier, later, written = _sampler([50, 70]), _sampler([60, 70]), io.BytesIO()
    earlier.seek(20)
    later.load_state_dict(earlier.state_dict(), on_dataset_change="append")
    build_index(io.BytesIO(PROMPT_FILE), PROMPTS, written, silent)
    job = _job()
    point = point_path(job.root, NEWEST)
    start = (job.root / ATTEMPTS / "0001" / START).read_bytes()
    records = [
        start,
        (point / "policy.json").read_bytes(),
        (point / DATA).read_bytes(),
        (point / COMMITTED).read_bytes(),
    ]
    lease = encode(Lease(holder=job.launch(), start="job"))
    meta = {"episode": 1, "train_iteration": 4, "consumed_samples": 32, "sample_per_episode": 16, "data_ratio": [1.0]}
    return {
        "record": [bytes([at]) + data for at, data in enumerate([*records, lease])],
        "pickled": [pickle.dumps(meta, protocol) for protocol in range(6)],
        "metadata": [pickle.dumps(_metadata(), protocol) for protocol in (2, 4, 5)],
        "tracked": [
            b'{"a":{"$array":"a"},"s":{"$array":"a","scalar":true},"t":{"$tuple":[1,{"$float":"nan"}]}}',
            b'{"t":{"$tensor":"b","dtype":"uint8","shape":[4]},"i":{"$items":[[1,{"$bytes":"AA=="}]]}}',
        ],
        "sampler": [msgspec.json.encode(later.state_dict())],
        "index": [written.getvalue()],
        "prompts": [PROMPT_FILE],
        "safetensors": [codec.dump({"a": codec.np.zeros(2)})],
        "name": [b"iter_0000004.a0001"],
        "file_of_a_job": [
            bytes([at]) + data
            for at, data in enumerate(
                [records[3], records[1], records[2], start, lease, job.events(1).read_bytes(), _failure()]
            )
        ],
    }
