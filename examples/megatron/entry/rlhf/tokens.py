"""Text to token ids and back: bytes for the tiny model, Megatron's tokenizer for real ones."""

from typing import Any, Protocol

from megatron.training import get_args, get_tokenizer


class Tokens(Protocol):
    """What the rollouts need from a tokenizer."""

    vocab_size: int
    end: int

    def encode(self, text: str) -> list[int]: ...


class ByteTokens:
    """UTF-8 bytes as ids; byte 0, which no text contains, ends a response."""

    vocab_size = 256
    end = 0

    def encode(self, text: str) -> list[int]:
        return list(text.replace("\0", " ").encode("utf-8"))


class MegatronTokens:
    """The tokenizer that Megatron built from its own flags."""

    def __init__(self) -> None:
        self._tokenizer = get_tokenizer()
        self.vocab_size = self._tokenizer.vocab_size
        self.end = self._tokenizer.eod

    def encode(self, text: str) -> list[int]:
        return list(self._tokenizer.tokenize(text))


def build_tokens() -> Tokens:
    """Bytes where Megatron was given its NullTokenizer, else the tokenizer that it built."""
    if get_args().tokenizer_type == "NullTokenizer":
        return ByteTokens()
    return MegatronTokens()


def encode_prompt(tokens: Tokens, prompt: str | list[dict[str, Any]], max_length: int) -> list[int]:
    """The ids of a text or a chat, of which a too long one keeps the end, where the question usually stands."""
    text = prompt if isinstance(prompt, str) else "\n".join(str(message["content"]) for message in prompt)
    return tokens.encode(text)[-max_length:]
