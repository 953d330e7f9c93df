"""Manifests against the field tables of `kubernetes_fields.json`, as the API server's strict validation reads them."""

import json
import re
from collections.abc import Iterator
from typing import Any

from . import TESTS

DEFINITIONS = json.loads((TESTS / "launch" / "kubernetes_fields.json").read_text())["definitions"]
# What the published descriptions say in words.
VALUES = {
    ("ReplicaSpec", "restartPolicy"): ("Always", "OnFailure", "Never", "ExitCode"),
    ("PodSpec", "restartPolicy"): ("Always", "OnFailure", "Never"),
    ("RunPolicy", "cleanPodPolicy"): ("Running", "None", "All"),
    ("PodFailurePolicyRule", "action"): ("FailJob", "FailIndex", "Ignore", "Count"),
    ("PodFailurePolicyOnExitCodesRequirement", "operator"): ("In", "NotIn"),
    ("FailurePolicyRule", "action"): ("FailJobSet", "RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts"),
}
QUANTITY = re.compile(r"\d+(\.\d+)?(m|[kMGTPE]i?)?")
_SIMPLE = {"string": str, "integer": int, "boolean": bool}


def mistakes(value: Any, kind: Any, path: str) -> Iterator[str]:
    """Each place in which `value` is not of the type `kind`: unknown and missing fields, wrong types."""
    if kind == "any":
        yield f"{path}: no table describes it"
    elif isinstance(kind, list):
        if not isinstance(value, list):
            yield f"{path}: {value!r} is no list"
            return
        for number, item in enumerate(value):
            yield from mistakes(item, kind[0], f"{path}[{number}]")
    elif isinstance(kind, dict):
        for key, item in value.items():
            yield from mistakes(item, kind["*"], f"{path}.{key}")
    elif kind == "quantity":
        if isinstance(value, bool) or not QUANTITY.fullmatch(str(value)):
            yield f"{path}: {value!r} is no quantity"
    elif kind in _SIMPLE:
        if type(value) is not _SIMPLE[kind]:
            yield f"{path}: {value!r} is no {kind}"
    else:
        yield from _of_definition(value, kind, path)


def _of_definition(value: Any, name: str, path: str) -> Iterator[str]:
    fields, required = DEFINITIONS[name]["fields"], DEFINITIONS[name]["required"]
    if not isinstance(value, dict):
        yield f"{path}: {value!r} is no {name}"
        return
    yield from (f"{path}.{key}: {name} has no such field" for key in value if key not in fields)
    yield from (f"{path}.{key}: {name} needs it" for key in required if key not in value)
    for key, item in value.items():
        allowed = VALUES.get((name, key))
        if allowed and item not in allowed:
            yield f"{path}.{key}: {item!r} is none of {allowed}"
        elif key in fields:
            yield from mistakes(item, fields[key], f"{path}.{key}")
