"""A prompt file is read row by row, and whatever is wrong with it is said with file, line and key."""

import contextlib
import gzip
import json
import logging
import multiprocessing
import os
import pickle
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from megatron_resume.data import EpisodeSampler, row_check, row_file
from megatron_resume.data.jsonl import KNOWN_KEYS, JsonlPrompts
from megatron_resume.errors import ConfigError, MismatchError, PromptError
from support.ordinary_user import as_an_ordinary_user, open_folder

Write = Callable[..., Path]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The default cache, which is empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "megatron_resume" / "prompts"


@pytest.fixture
def write(tmp_path: Path, cache: Path) -> Write:
    def write(*lines: str | bytes, name: str = "prompts.jsonl", end: bytes = b"\n") -> Path:
        path = tmp_path / name
        encoded = [line.encode() if isinstance(line, str) else line for line in lines]
        path.write_bytes(b"".join(line + end for line in encoded))
        return path

    return write


def prompt(text: str) -> str:
    return json.dumps({"prompt": text})


def refusal(path: Path, **options: str) -> str:
    with pytest.raises(PromptError) as refused:
        JsonlPrompts(path, **options)
    return str(refused.value)


def test_prompts_are_read_by_position_slice_and_from_the_end(write: Write) -> None:
    prompts = JsonlPrompts(write(*map(prompt, "abcd")))
    assert (len(prompts), prompts[1], prompts[-1], prompts[1:3], list(prompts)) == (4, "b", "d", ["b", "c"], [*"abcd"])


def test_a_position_behind_the_last_row_is_an_index_error(write: Write) -> None:
    with pytest.raises(IndexError):
        JsonlPrompts(write(prompt("a")))[1]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=st.lists(st.text(min_size=1).filter(str.strip), min_size=1, max_size=20),
    gaps=st.lists(st.sampled_from(["\n", "\r\n", "\n\n", "\n \t\n", "\r\n\r\n"]), min_size=20, max_size=20),
    ascii_only=st.booleans(),
)
def test_it_reads_what_a_plain_reader_reads(
    tmp_path: Path, cache: Path, texts: list[str], gaps: list[str], ascii_only: bool
) -> None:
    path = tmp_path / "prompts.jsonl"
    rows = [json.dumps({"text": text}, ensure_ascii=ascii_only) for text in texts]
    path.write_bytes("".join(map(str.__add__, rows, gaps)).encode("utf-8", "replace"))
    plain = [json.loads(line)["text"] for line in path.read_text("utf-8").split("\n") if line.strip()]
    assert list(JsonlPrompts(path)) == plain


def test_a_line_longer_than_a_block_is_one_prompt(write: Write) -> None:
    long = "x" * (20 << 20)
    assert JsonlPrompts(write(prompt("a"), prompt(long), prompt("b")))[1] == long


@pytest.mark.parametrize("key", KNOWN_KEYS)
def test_without_a_key_the_first_known_one_is_taken(write: Write, key: str) -> None:
    assert JsonlPrompts(write(json.dumps({"id": 1, key: "a"}))).key == key


def test_a_key_that_was_asked_for_is_taken(write: Write) -> None:
    assert JsonlPrompts(write('{"prompt": "a", "chosen": "b"}'), key="chosen")[0] == "b"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ('{"prompt": "a"', "not JSON: "),
        ("[" * 100_000, "not JSON: "),
        ('["a"]', "expected a JSON object, got list"),
        ("{}", "no key 'prompt'; it has no keys; choose one with key= (--prompt-key)"),
        ('{"question": "b", "id": 1}', "no key 'prompt'; it has question, id; choose"),
        ('{"prompt": " "}', "key 'prompt': expected a text that is not empty, or a list of chat messages"),
        ('{"prompt": " "}', "got ' '"),
        ('{"prompt": 3}', "(role, content), got 3"),
        ('{"prompt": []}', "got []"),
        ('{"prompt": ["hello"]}', "got ['hello']"),
        ('{"prompt": [{"role": "user"}]}', "got [{'role': 'user'}]"),
        ('{"prompt": "a", "score": nan}', "not JSON: "),  # which Python does not read either
        (b'{"prompt": "\xff"}', "not UTF-8: invalid start byte"),
    ],
)
def test_a_row_that_is_no_prompt_is_refused_with_its_line(write: Write, row: str | bytes, reason: str) -> None:
    path = write(prompt("a"), "", "  ", row, prompt("b"))
    for _ in range(2):  # by the first start, and by each one until the file is mended
        said = refusal(path)
        assert said.startswith(f"{path}, line 4")
        assert reason in said


def test_all_bad_rows_are_named_at_once(write: Write) -> None:
    path = write(prompt("a"), "{", prompt("b"), "", '{"prompt": 3}', prompt("c"))
    said = refusal(path).splitlines()
    assert said[0] == f"{path} has rows that are no prompts, 2 rows:"
    assert said[1].startswith("  line 2: not JSON: ")
    assert said[2].startswith("  line 5, key 'prompt': expected a text")


def test_of_very_many_bad_rows_the_first_twenty_are_named(write: Write) -> None:
    said = refusal(write(*[prompt("a"), "{"] * 1000, prompt("b"))).splitlines()
    assert "the first 20 of them" in said[0]
    assert [line.split(":")[0].strip() for line in said[1:]] == [f"line {line}" for line in range(2, 42, 2)]


def test_a_file_is_checked_once_for_each_key_and_again_when_it_changed(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[int] = []
    monkeypatch.setattr(row_file, "bad_rows", lambda *args: (looked.append(1), row_check.bad_rows(*args))[1])
    path = write('{"prompt": "a", "text": "b"}', '{"prompt": "c", "text": 3}', '{"prompt": "e", "text": "f"}')
    for _ in range(3):
        assert JsonlPrompts(path)[1] == "c"
    assert looked == [1]
    assert "line 2, key 'text'" in refusal(path, key="text"), "what was right for one key is not for another"
    write('{"prompt": "a"}', '{"prompt": 3}', '{"prompt": "e"}')
    assert "line 2, key 'prompt'" in refusal(path)


def test_where_no_cache_can_be_kept_rows_are_checked_all_the_same(write: Write, tmp_path: Path) -> None:
    (tmp_path / "no folder").touch()
    path = write(prompt("a"), "{", prompt("b"))
    with pytest.raises(PromptError, match="line 2: not JSON"):
        JsonlPrompts(path, cache_dir=tmp_path / "no folder")


@pytest.mark.parametrize(
    "value", ["NaN", "Infinity", "-Infinity", "1e999", '"\\ud83d"', "123456789012345678901234567890"]
)
def test_a_field_is_read_as_pythons_json_reads_it(write: Write, value: str) -> None:
    row = f'{{"prompt": "b", "unused": {value}}}'
    assert json.loads(row)["prompt"] == "b"
    assert list(JsonlPrompts(write(prompt("a"), row, prompt("c")))) == ["a", "b", "c"]


@pytest.mark.parametrize("value", ['"b \\ud83d"', '[{"role": "user", "content": "b \\ud83d"}]'])
def test_half_a_pair_of_surrogates_in_a_prompt_is_refused_before_a_tokenizer_fails(write: Write, value: str) -> None:
    said = refusal(write(prompt("a"), f'{{"prompt": {value}}}', prompt("c")))
    assert "line 2, key 'prompt': half a pair of surrogates" in said


def test_a_subclass_may_give_a_text_to_bad_rows(write: Write) -> None:
    class Mended(JsonlPrompts):
        def __getitem__(self, position):  # type: ignore[no-untyped-def, override]
            try:
                return super().__getitem__(position)
            except PromptError:
                return "none"

    path = write(prompt("a"), "{", prompt("c"))
    assert [Mended(path, check=False)[row] for row in range(3)] == ["a", "none", "c"]


def test_a_cache_folder_that_may_not_be_entered_costs_a_check_in_each_process() -> None:
    with open_folder() as base:
        (base / "prompts.jsonl").write_text(prompt("a"))
        (base / "closed").mkdir(mode=0o700)
        with as_an_ordinary_user():
            assert list(JsonlPrompts(base / "prompts.jsonl", cache_dir=base / "closed" / "cache")) == ["a"]


def test_a_prompt_may_be_the_messages_of_a_chat(write: Write) -> None:
    chat = [{"role": "system", "content": "short"}, {"role": "user", "content": [{"type": "text", "text": "2 + 2"}]}]
    prompts = JsonlPrompts(write(prompt("a"), json.dumps({"prompt": chat}), json.dumps({"prompt": chat[:1]})))
    assert prompts[1:] == [chat, chat[:1]]


def test_the_last_row_is_checked_at_birth(write: Write) -> None:
    path = write(prompt("a"), prompt("b"), '{"prompt": ')
    assert refusal(path).startswith(f"{path}, line 3: not JSON")


def test_a_first_row_without_a_known_key_is_refused_with_what_it_has(write: Write) -> None:
    path = write('{"body": "a"}')
    assert refusal(path) == (
        f"{path}, line 1: none of the keys prompt, question, instruction, text; it has body; "
        "choose one with key= (--prompt-key)"
    )


def test_a_message_repeats_no_more_of_a_row_than_a_person_reads(write: Write) -> None:
    assert len(refusal(write(json.dumps({"prompt": ["x" * 10_000]})))) < 400


def test_a_message_shows_control_characters_of_a_key(write: Write) -> None:
    assert "\x1b" not in refusal(write('{"\\u001b[2J": "a"}'))


@pytest.mark.parametrize("content", [b"", b"\n \n\r\n"])
def test_a_file_without_rows_is_refused(write: Write, content: bytes) -> None:
    assert "no prompts; one JSON object per line is needed" in refusal(write(content, end=b""))


def test_a_missing_file_is_named(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "absent.jsonl"
    assert refusal(path) == f"{path}: cannot be read: No such file or directory; choose a file of JSON lines"


def test_a_folder_is_refused(tmp_path: Path, cache: Path) -> None:
    assert "it is no plain file" in refusal(tmp_path)


def test_a_fifo_is_refused_without_waiting_for_its_writer(tmp_path: Path, cache: Path) -> None:
    os.mkfifo(tmp_path / "prompts.jsonl")
    assert "it is no plain file" in refusal(tmp_path / "prompts.jsonl")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (gzip.compress(b"{}", mtime=0), "gunzip"),
        (b"PAR1....", "Parquet"),
        (b'\xef\xbb\xbf{"prompt": "a"}', "byte order mark"),
        ('{"prompt": "a"}'.encode("utf-16"), "UTF-16"),
    ],
)
def test_what_is_no_text_is_named(write: Write, content: bytes, what: str) -> None:
    assert what in refusal(write(content))


def test_what_the_user_must_correct_ends_a_job_for_good() -> None:
    assert issubclass(PromptError, ConfigError)
    assert PromptError.exit_code == 78


def test_a_link_to_a_file_is_followed(write: Write, tmp_path: Path) -> None:
    write(prompt("a"))
    (tmp_path / "link").symlink_to("prompts.jsonl")
    assert JsonlPrompts(tmp_path / "link")[0] == "a"


def test_a_file_that_is_written_to_gives_no_more_prompts(write: Write) -> None:
    path = write(prompt("a"), prompt("b"))
    prompts = JsonlPrompts(path)
    with open(path, "ab") as file:
        file.write(prompt("c").encode())
    with pytest.raises(PromptError, match="was written to while it was in use") as refused:
        prompts[0]
    assert str(path) in str(refused.value)


def test_a_file_that_is_rewritten_at_equal_size_gives_no_more_prompts(write: Write) -> None:
    path = write(prompt("a"))
    prompts = JsonlPrompts(path)
    os.utime(path, ns=(0, 0))
    with pytest.raises(PromptError, match="was written to"):
        prompts[0]


def test_a_file_that_was_replaced_by_another_still_gives_its_own_prompts(write: Write, tmp_path: Path) -> None:
    prompts = JsonlPrompts(write(prompt("a")))
    os.replace(write(prompt("b"), name="other"), tmp_path / "prompts.jsonl")
    assert prompts[0] == "a"


def test_the_digest_of_some_rows_is_not_that_of_a_file_that_came_in_its_place(write: Write, tmp_path: Path) -> None:
    prompts = JsonlPrompts(write(prompt("a"), prompt("b")))
    os.replace(write(prompt("c"), prompt("d"), name="other"), tmp_path / "prompts.jsonl")
    with pytest.raises(PromptError, match="was written to while it was in use"):
        prompts.digest(1)


def test_the_digest_of_some_rows_is_that_that_of_a_file_of_these_rows(write: Write) -> None:
    prompts = JsonlPrompts(write(*map(prompt, "abcdef")))
    for rows in range(1, 7):
        assert prompts.digest(rows) == JsonlPrompts(write(*map(prompt, "abcdef"[:rows]), name="first")).digest(rows)


def test_the_digest_counts_neither_line_ends_nor_blank_lines(write: Write) -> None:
    unix = JsonlPrompts(write(prompt("a"), prompt("b")))
    windows = JsonlPrompts(write("", prompt("a"), " ", prompt("b"), "", name="windows", end=b"\r\n"))
    assert [unix.digest(rows) for rows in range(3)] == [windows.digest(rows) for rows in range(3)]


def test_the_digest_sees_a_change_of_one_character(write: Write) -> None:
    one, other = JsonlPrompts(write(prompt("a"), prompt("b"))), JsonlPrompts(write(prompt("a"), prompt("c"), name="c"))
    assert one.digest(1) == other.digest(1)
    assert one.digest(2) != other.digest(2)


def test_the_digest_sees_another_key(write: Write) -> None:
    path = write('{"prompt": "a", "text": "b"}')
    assert JsonlPrompts(path).digest(1) != JsonlPrompts(path, key="text").digest(1)


def test_the_digest_of_more_rows_than_there_are_is_an_error(write: Write) -> None:
    with pytest.raises(ValueError, match="has 1 rows, the digest of 2"):
        JsonlPrompts(write(prompt("a"))).digest(2)


def test_a_sampler_takes_its_fingerprint(write: Write) -> None:
    path = write(*map(prompt, "abc"))
    state = EpisodeSampler(3, samples_per_episode=2, datasets=JsonlPrompts(path)).state_dict()
    path.write_text("\n".join(map(prompt, "abd")))
    with pytest.raises(MismatchError, match=r"prompts\.jsonl"):
        EpisodeSampler(3, samples_per_episode=2, datasets=JsonlPrompts(path)).load_state_dict(state)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_worker_reads_the_same_prompts(write: Write, method: str) -> None:
    prompts = JsonlPrompts(write(*map(prompt, "abc")))
    with multiprocessing.get_context(method).Pool(1) as pool:
        assert pool.map(prompts.__getitem__, range(3)) == ["a", "b", "c"]


def test_a_worker_that_finds_another_file_says_so(write: Write) -> None:
    pickled = pickle.dumps(JsonlPrompts(write(prompt("a"))))
    write(prompt("other"))
    with pytest.raises(PromptError, match="was written to"):
        pickle.loads(pickled)


def test_pickled_prompts_hold_neither_text_nor_index(write: Write) -> None:
    assert len(pickle.dumps(JsonlPrompts(write(*map(prompt, map(str, range(10_000))))))) < 1_000


def test_memory_does_not_grow_with_the_rows(write: Write) -> None:
    path = write(*[prompt("x" * 50)] * 400_000)
    JsonlPrompts(path)
    tracemalloc.start()
    try:
        prompts = JsonlPrompts(path)
        assert prompts[200_000] == "x" * 50
        assert tracemalloc.get_traced_memory()[1] < 400_000  # the index has 3.2 MB, the file 27
    finally:
        tracemalloc.stop()


def test_progress_is_told_in_bytes(write: Write) -> None:
    path, calls = write(prompt("a")), list[tuple[int, int]]()
    JsonlPrompts(path, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(path.stat().st_size, path.stat().st_size)]


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """As a user who may write nowhere below `folder`."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    with as_an_ordinary_user():
        yield


def test_nothing_is_written_beside_the_data() -> None:
    with open_folder() as base:
        (base / "data").mkdir()
        (base / "cache").mkdir(mode=0o777)
        (base / "cache").chmod(0o777)
        (base / "data" / "prompts.jsonl").write_text(prompt("a"))
        with read_only(base / "data"):
            assert JsonlPrompts(base / "data" / "prompts.jsonl", cache_dir=base / "cache")[0] == "a"
        assert os.listdir(base / "data") == ["prompts.jsonl"]


def test_a_cache_that_cannot_be_written_is_named_and_done_without(caplog: pytest.LogCaptureFixture) -> None:
    with open_folder() as base:
        (base / "cache").mkdir()
        (base / "prompts.jsonl").write_text(prompt("a") + "\n" + prompt("b"))
        with read_only(base), caplog.at_level(logging.WARNING):
            prompts = JsonlPrompts(base / "prompts.jsonl", cache_dir=base / "cache")
            assert [*prompts, *pickle.loads(pickle.dumps(prompts))] == ["a", "b", "a", "b"]
        assert f"cannot be kept in {base / 'cache'} (Permission denied)" in caplog.text


def test_a_cache_that_may_only_be_read_is_used(caplog: pytest.LogCaptureFixture) -> None:
    with open_folder() as base:
        (base / "prompts.jsonl").write_text(prompt("a"))
        JsonlPrompts(base / "prompts.jsonl", cache_dir=base / "cache")
        calls: list[int] = []
        with read_only(base):
            JsonlPrompts(base / "prompts.jsonl", cache_dir=base / "cache", progress=lambda *_: calls.append(1))
        assert (calls, caplog.text) == ([], "")
