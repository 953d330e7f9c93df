from typing import Protocol
class Dataset(Protocol):
    """What a fingerprint is taken of."""

    @property
    def name(self) -> str: ...

    def __len__(self) -> int: ...

    def digest(self, rows: int) -> str: ...
