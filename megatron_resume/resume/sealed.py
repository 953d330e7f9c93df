"""What a receipt stores of arguments: those on a list by value, all others as a digest that only shows a change. Pure.

What a secret is called nobody can list, so the list names what a comparison needs to read. A digest is keyed with
random bytes of the job's folder: without them no list of likely passwords tells which one it was.
"""

import hmac
import json
import os
import re
from typing import Any

from .effects import is_known
from .recorded import Arguments, recorded

DIGEST = "hmac-sha256"
BESIDE = "seen_from_save"  # the same of a path as it is seen from the role's save folder: both may be moved together
_DIGEST = r"[0-9a-f]{8}:[0-9a-f]{64}"

# Compiled at their first use: the import of this package is to take no time.
_TEXTS = (  # names, or words with which they end, of arguments that hold names of methods or paths
    r"dataloader_type|lr_decay_style|lr_wsd_decay_style|weight_decay_incr_style|normalization|optimizer|rampup_batch_size"
    r"|ckpt_format|position_embedding_type|tokenizer_type|tokenizer_model|vocab_file|merge_file|split|(\w+_)?data_path"
    r"|save|load|pretrained_checkpoint|dataloader_save|tensorboard_dir|data_cache_path|transformer_impl|resume_role"
    r"|trained_roles|attention_backend|fp8|fp8_recipe|fp4|fp4_recipe|exit_signal|(\w+_)?dtype|data_checkpoint_path"
    r"|rope_type|recompute_(granularity|method)|moe_(router|token|grouped)\w*_(type|function|policy)|cuda_graph_impl"
    r"|(muon|sgd|adam|lion)_\w*(mode|prec|type|optimizer)|mask_type|sequence_packing_algo|(\w+_)?checkpoint_dir"
)
_QUANTITIES = (  # words in names of arguments that hold numbers
    r"(alpha|base|batch|batches|beta\d?|bf16|bias|capacity|channels|clamp|clip|coef|coeff|coefficient|count|decay|depth"
    r"|dim|divisible|dropout|epoch|epochs|episode|episodes|eps|epsilon|experts|factor|fp16|fraction|freq|gamma|generations"
    r"|grad|group|groups|head|heads|height|hidden|hysteresis|interval|iter|iteration|iterations|iters|kl|lag|lambda|layer"
    r"|layers|len|length|level|limit|loss|lr|margin|max|min|momentum|mult|norm|nodes|num|penalty|percent|prob|prompts"
    r"|ranks|rate|ratio|rope|rotary|sample|samples|scale|scaling|schedule|seed|seq|shards|size|sizes|split|std|step|steps"
    r"|target|tau|temperature|threshold|topk|top|vocab|warmup|weight|width|window|workers|world)"
)
_SECRETS = r"(?i)pass|pwd|secret|token(?!s|izer)|auth|cred|cookie|(^|_)(key|ak|sk|id|pin|otp|code)($|_)"
_WORD_OR_PATH = r"[\w./+,-]{0,4096}"  # no URL: those carry passwords, and tokens in what they ask for
_MAX_ITEMS = 1_000


def is_open(name: str, value: object) -> bool:
    """Whether a receipt may hold argument `name` as it is."""
    if value is None or isinstance(value, bool) or value in ("", [], {}):
        return True  # too little to be a secret
    if isinstance(value, list):
        return len(value) <= _MAX_ITEMS and all(is_open(name, item) for item in value)
    if isinstance(value, int | float):
        return (is_known(name) or _is_quantity(name)) and not re.search(_SECRETS, name)
    if isinstance(value, str):
        return re.fullmatch(_TEXTS, name) is not None and re.fullmatch(_WORD_OR_PATH, value) is not None
    return False


def _is_quantity(name: str) -> bool:
    return any(re.fullmatch(_QUANTITIES, word) for word in name.split("_"))


def needs_key(arguments: Arguments) -> bool:
    """Whether `sealed` will make a digest."""
    return not all(is_open(name, value) or is_sealed(value) for name, value in arguments.items())


def sealed(arguments: Arguments, key: bytes) -> Arguments:
    """`arguments` as a receipt may hold them. What is sealed already stays so: it came from an earlier receipt."""
    return {name: _sealed(name, value, arguments.get("save"), key) for name, value in arguments.items()}


def _sealed(name: str, value: Any, save: object, key: bytes) -> Any:
    if is_open(name, value) or is_sealed(value):
        return value
    found = {DIGEST: f"{id_of(key)}:{_digest(key, name, value)}"}
    if _is_path(value) and isinstance(save, str) and _is_path(save):
        found[BESIDE] = f"{id_of(key)}:{_digest(key, name, os.path.relpath(value, save))}"
    return found


def _is_path(value: object) -> bool:
    return isinstance(value, str) and os.path.isabs(value)


def id_of(key: bytes) -> str:
    """By which digests made with `key` know each other."""
    return hmac.digest(key, b"", "sha256")[:4].hex()


def _digest(key: bytes, name: str, value: object) -> str:
    text = json.dumps([name, _alike(value)], sort_keys=True)
    return hmac.digest(key, text.encode(), "sha256").hex()


def _alike(value: Any) -> Any:
    """Equal numbers written alike: 1 and 1.0 are the same argument."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_alike(item) for item in value]
    if isinstance(value, dict):
        return {key: _alike(item) for key, item in value.items()}
    return value


def is_sealed(value: object) -> bool:
    """Whether this is a digest that a receipt holds instead of a value."""
    if not isinstance(value, dict) or DIGEST not in value or not value.keys() <= {DIGEST, BESIDE}:
        return False
    return all(isinstance(one, str) and re.fullmatch(_DIGEST, one) for one in value.values())


def moved_along(then: object, now: object) -> bool:
    """Whether both are digests of paths that look the same from the role's save folder."""
    if not (isinstance(then, dict) and isinstance(now, dict) and is_sealed(then) and is_sealed(now)):
        return False
    return BESIDE in then and then[BESIDE] == now.get(BESIDE)


def incomparable(then: Arguments, key: bytes | None) -> list[str]:
    """Arguments in `then` whose digests were made with another key than this one."""
    ours = id_of(key) if key else None
    return [name for name, value in then.items() if is_sealed(value) and not str(value[DIGEST]).startswith(f"{ours}:")]


def as_recorded(now: Arguments, then: Arguments, key: bytes | None) -> Arguments:
    """`now`, which is plain, in the form that each argument has in `then`, so that equal ones are equal.

    What cannot be compared is taken as unchanged (`incomparable` names it); what an older release left out of `then`,
    since it looked secret, is left out.
    """
    as_before, save = recorded(now), now.get("save")
    unknown = set(incomparable(then, key))
    found: Arguments = {}
    for name, value in now.items():
        if name in unknown:
            found[name] = then[name]
        elif is_sealed(then.get(name)):
            assert key is not None  # else it would be unknown
            new = _sealed(name, value, save, key)
            found[name] = then[name] if is_sealed(new) and new[DIGEST] == then[name][DIGEST] else new
        elif name in then:
            kept = recorded({"value": value})  # by no name, for it passed with its own
            found |= {name: kept["value"]} if kept else {}
        elif name in as_before:
            found[name] = as_before[name]
    return found
