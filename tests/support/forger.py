"""Somebody who can write the data checkpoint folder: changes records, and signs the commit anew."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from megatron_resume.checkpoint.layout import COMMITTED, DATA, PointName, point_path

from .job_on_disk import JobOnDisk

Change = Callable[[dict[str, Any]], object]


def set_to(**values: object) -> Change:
    return lambda record: record.update(values)


class Forger:
    """Of one point of a job."""

    def __init__(self, job: JobOnDisk, name: PointName):
        self.job, self.point = job, point_path(job.root, name)

    def change(self, file: str, change: Change) -> None:
        record = json.loads((self.point / file).read_text())
        change(record)
        self.write(file, json.dumps(record).encode())

    def write(self, file: str, data: bytes) -> None:
        (self.point / file).write_bytes(data)
        if file != COMMITTED:
            self.sign(file, len(data), hashlib.sha256(data).hexdigest())

    def sign(self, file: str, size: int, digest: str) -> None:
        self.change(COMMITTED, lambda manifest: manifest["files"].update({file: {"size": size, "sha256": digest}}))

    def receipt(self, **values: object) -> None:
        self.change("policy.json", set_to(**values))

    def data(self, **values: object) -> None:
        self.change(DATA, set_to(**values))

    def model_file(self, **values: object) -> None:
        """Change what the receipt of policy says of its first file."""
        self.change("policy.json", lambda receipt: receipt["files"][0].update(values))

    def replace_by(self, path: Path, kind: Callable[[Path], object]) -> None:
        path.unlink()
        kind(path)

    def fifo(self, file: str) -> None:
        """An empty file by its size, which waits for a writer when it is opened."""
        self.replace_by(self.point / file, os.mkfifo)
        self.sign(file, 0, hashlib.sha256(b"").hexdigest())
