"""Secrets as people spell them on a command line, and a look at all files of a folder for them."""

from pathlib import Path
from typing import Any

PASSWORD = "hunter2SECRET"
NAMES = (
    *("hftoken", "hf_token", "HF_TOKEN", "passwd", "password", "db_pass", "auth", "auth_header", "oss_ak", "oss_sk"),
    *("access_key_id", "access_key_secret", "aws_secret_access_key", "api_key", "apikey", "openai_key", "wandb_key"),
    *("wandb_entity", "git_credentials", "cookie", "session_id", "bearer", "private_key", "ssh_pw", "login"),
    *("dsn", "jwt", "sas", "kennwort", "geheim", "what_nobody_guesses"),
)
SPELLINGS: dict[str, Any] = {
    **dict.fromkeys(NAMES, PASSWORD),
    "webhook": f"https://oapi.dingtalk.com/robot/send?access_token={PASSWORD}",
    "mirror": f"https://user:{PASSWORD}@mirror.example/simple",
    "tracking_uri": f"postgresql://user:{PASSWORD}@db/runs",
    "header": f"Authorization: Bearer {PASSWORD}",
    "headers": ["X-Api-Key", PASSWORD],
    "env": {"HF_TOKEN": PASSWORD},
    "logger": {"wandb": {"project": "rlhf", "key": PASSWORD}},
    "load": f"s3://ak:{PASSWORD}@bucket/model",
    "tokenizer_model": f"hf://x?token={PASSWORD}",
    "extra": [{"name": "a", "value": PASSWORD}],
    "command_line": f"curl -u user:{PASSWORD} https://host",
    "numbers": 20251130123456789,
    "oss_pin": 20251130123456789,
}
SECRETS = (PASSWORD, "20251130123456789")


def files_with_secrets(folder: Path) -> list[str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    return [str(path) for path in files if any(secret.encode() in path.read_bytes() for secret in SECRETS)]


MESSAGES = (
    "unrecognized arguments: {argv}",
    "401 Client Error for url: https://u:{secret}@host/api?access_token={secret}",
    "request failed with headers {{'Authorization': 'Bearer {secret}', 'x-acs-token': '{secret}'}}",
    "login of user me with {secret} failed",
)  # of errors of others
