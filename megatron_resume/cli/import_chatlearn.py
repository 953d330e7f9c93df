"""`import-chatlearn OLD ... --to NEW`: say what was imported, and how the job goes on."""

from collections.abc import Mapping
from pathlib import Path

from megatron_resume.checkpoint.chatlearn import import_chatlearn
from megatron_resume.config import resolve
from megatron_resume.launch.shell import joined
from megatron_resume.shown import shown_in_line


def run(old: Path, models: Mapping[str, Path | None], new: str, step: int | None, model_iteration: int | None) -> None:
    """Import a step of `old` into `new`, and print what that is. Roles without a folder are not trained.

    Raises:
        ResumeError: Nothing is imported.
    """
    root = Path(str(resolve({"data_checkpoint_path": new}, {}).data_checkpoint_path))
    given = {role: path for role, path in models.items() if path is not None}
    chosen, name = import_chatlearn(old, given, root, step, model_iteration)
    moment = chosen.moment
    print(f"imported step {chosen.step} ({len(chosen.replicas)} replicas agree) as {name}")
    print(f"next episode {moment.episode}, {moment.consumed_samples} samples consumed")
    for note in chosen.notes:
        print(f"note: {shown_in_line(note)}")
    print("ChatLearn keeps no random states and no state of your script: they are those of the models, or begin anew")
    print("from its first start on, the job saves in these folders, sets their trackers, and moves newer models aside")
    print("go on with:", joined(["--data-checkpoint-path", str(root), "--trained-roles", ",".join(given)]))
    for role, path in given.items():
        print(f"  {role}: {joined(['--save', str(path)])}")
