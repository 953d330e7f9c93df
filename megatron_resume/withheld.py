"""Text without secrets, for records and reports: messages quote what was typed, addresses and headers.

Names of secrets cannot all be known, so nothing is stored that need not be (`resume.sealed`). But a message of others
is kept for what it says; what is known to be a secret, and what looks like one, is taken out of it here.
"""

import re
from collections.abc import Collection, Iterator, Mapping

WITHHELD = "***"
MAX = 16_000  # characters of a text; the rest is cut
_MIN = 4  # characters of a secret that is looked for by its value

# Compiled at their first use: the import of this package is to take no time.
_WORDS = (  # in names, with whatever stands around them
    r"pass(?:wd|word|wort|phrase|code)?|pwd|secret|token(?!i[sz]er|s\b)|auth(?!or)|authorization|credential|cookie"
    r"|api_?key|access_?key|private_?key|signature|webhook|bearer|certificate"
)
_ENDS = r"key|keys|ak|sk|sas|pat|otp|pin|dsn|pw|cred|creds|login|user_?info|ticket|license|hook"
_SECRET_NAME = rf"(?i){_WORDS}|(?:^|[_.-])(?:{_ENDS})$"
# A name, and what parts it from its value.
_NAMED = r"(?<![\w.-])([\w.-]{1,80})(['\"]?\s*(?:\(=|=>|[:=])\s*|['\"],\s+(?=['\"])|\s+)"
_VALUE = r"\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'|[^\s,;)}\]]+"
_URL = r"(?i)\b([a-z][a-z0-9+.-]{1,20}://)(?:[^\s/?#'\"<>]*@)?([^\s?#'\"<>]*)(?:[?#][^\s'\"<>]*)?"
_HEADER = (
    r"(?i)\b((?:proxy-)?authorization|(?:set-)?cookie|x-[\w-]{0,20}(?:token|key|auth)[\w-]{0,20})"
    r"(['\"]?\s*[:=]\s*['\"]?)[^'\"\r\n]+"
)
_SCHEME = r"(?i)\b(bearer|basic|digest|token)\s+(?=[\w~+/.=-]*[\d=])[\w~+/.=-]{6,}"
_SHAPES = (  # of tokens of well-known services, and of keys
    r"\b(?:hf_|gh[opsu]_|github_pat_|glpat-|sk-|pk-|xox[abeprs]-|npm_|pypi-|dop_v1_|ya29\.|AIza|wandb_v1_)[\w-]{8,}"
    r"|\b(?:AKIA|ASIA|LTAI)[A-Za-z0-9]{12,}|\beyJ[\w-]{8,}(?:\.[\w-]+){1,2}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
)
_RANDOM = r"/(?=[\w-]*\d)(?=[\w-]*[A-Za-z])[\w-]{16,}"  # a part of an address, as of a webhook


def names_a_secret(name: str) -> bool:
    """Whether what goes by this name is one, as far as its name tells."""
    return re.search(_SECRET_NAME, name) is not None


def without_secrets(text: str, known: Collection[str] = ()) -> str:
    """`text` with `***` for each of the `known` values, and for what looks like a secret by name or shape.

    At most `MAX` characters of it.
    """
    for value in sorted({value for value in known if len(value) >= _MIN}, key=len, reverse=True):
        text = text.replace(value, WITHHELD)
    text = re.sub(_SHAPES, WITHHELD, text[:MAX])
    if "://" in text:
        text = re.sub(_URL, _address, text)
    text = re.sub(_HEADER, rf"\1\2{WITHHELD}", text)
    text = re.sub(_SCHEME, rf"\1 {WITHHELD}", text)
    return "".join(_without_named(text))


def _without_named(text: str) -> Iterator[str]:
    """The parts of `text`, without the values that stand after names of secrets."""
    value, at = re.compile(_VALUE), 0
    for named in re.finditer(_NAMED, text):
        if named.start() >= at and _parts_a_secret(named, text) and (found := value.match(text, named.end())):
            yield text[at : named.end()] + WITHHELD
            at = found.end()
    yield text[at:]


def _parts_a_secret(named: re.Match[str], text: str) -> bool:
    name, separator, following = named[1], named[2], text[named.end() : named.end() + 1]
    if "," in separator:  # a command line as Python prints it
        return name.startswith("-") and names_a_secret(name)
    if separator.isspace():
        is_option = name.startswith("-") and following not in ("-", "")
        return (is_option and names_a_secret(name)) or (following in ("'", '"') and _is_plain_of(name))
    return names_a_secret(name) if "=" in separator or separator[0] in "'\"" else _is_plain_of(name)


def _is_plain_of(name: str) -> bool:
    """Whether it names a secret also where it may be a word of a sentence."""
    return re.search(f"(?i){_WORDS}", name) is not None


def _address(found: re.Match[str]) -> str:
    """Scheme, host and path of an address: no user, no query, and nothing random in the path."""
    rest = "?" + WITHHELD if "?" in found[0] else ""
    return found[1] + re.sub(_RANDOM, "/" + WITHHELD, found[2]) + rest


def typed(argv: Collection[str]) -> Iterator[tuple[str, str]]:
    """Names and values of a command line: `--name value`, `--name=value`, `name=value`."""
    name = ""
    for word in argv:
        if word.startswith("-") and len(word) > 1 and not word[1:2].isdigit():
            name, has_value, value = word.lstrip("-").partition("=")
            if has_value:
                yield name.replace("-", "_"), value
        elif name:
            yield name.replace("-", "_"), word
        elif "=" in word:
            key, _, value = word.partition("=")
            yield key.lstrip("+"), value


def of_environ(environ: Mapping[str, str]) -> Iterator[str]:
    """Values of variables whose names say that they are secrets; paths to one are none."""
    return (value for name, value in environ.items() if names_a_secret(name) and not value.startswith("/"))
