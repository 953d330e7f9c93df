"""The course of a run as lines over time, for whatever draws them."""

from typing import NamedTuple

from megatron_resume.resume.story import Chapter, Story

MAX_PLACES = 6_000  # of all commits, that are drawn


class Place(NamedTuple):
    time_s: float
    iteration: int


class Leg(NamedTuple):
    """A line of one meaning: a kind of stretch, or "drop" from what was reached to what was kept."""

    kind: str
    places: tuple[Place, ...]


def drawn(told: Story) -> tuple[Chapter, ...]:
    """The chapters that have a place in time."""
    return tuple(one for one in told.chapters if one.ended_s is not None)


def course(chapters: tuple[Chapter, ...]) -> list[Leg]:
    """The legs of all attempts among `chapters`, which join each other."""
    attempts = [one for one in chapters if one.attempt and one.began_s is not None]
    budget = max(2, MAX_PLACES // max(1, len(attempts)))
    legs: list[Leg] = []
    for at, chapter in enumerate(attempts):
        legs += _legs(chapter, budget)
        if at + 1 < len(attempts):
            legs += _gap(chapter, attempts[at + 1])
    return [leg for leg in legs if len(leg.places) > 1]


def _legs(chapter: Chapter, budget: int) -> list[Leg]:
    began_s, ended_s = chapter.began_s or 0.0, chapter.ended_s or 0.0
    start = chapter.from_iteration
    rises_s = chapter.trained_s if chapter.trained_s is not None else began_s
    silent_from_s = next((s.from_s for s in chapter.stretches if s.kind == "silent"), ended_s)
    reached, kept = chapter.reached or start, chapter.kept if chapter.kept is not None else start
    places = [Place(rises_s, start), *_commits(chapter, rises_s, silent_from_s, budget)]
    split = max(at for at, place in enumerate(places) if at == 0 or place.iteration <= max(kept, start))
    beyond = [place for place in places[split:] if place.iteration <= reached]
    beyond.append(Place(max(silent_from_s, places[-1].time_s), reached))
    is_lost = chapter.lost_iterations > 0
    return [
        Leg("setup", (Place(began_s, start), Place(rises_s, start)) if rises_s > began_s else ()),
        Leg("kept", tuple(places[: split + 1] if is_lost else [*places[:split], *beyond])),
        Leg("lost", tuple(beyond) if is_lost else ()),
        Leg("silent", (Place(silent_from_s, reached), Place(ended_s, reached)) if ended_s > silent_from_s else ()),
        Leg("drop", (Place(ended_s, reached), Place(ended_s, kept)) if is_lost else ()),
    ]


def _commits(chapter: Chapter, from_s: float, to_s: float, budget: int) -> list[Place]:
    """In the order of time, between the two, and not more than `budget`."""
    step = -(-len(chapter.commits) // budget) or 1
    found: list[Place] = []
    for commit in [*chapter.commits[:-1:step], *chapter.commits[-1:]]:
        if commit.saved_s is not None:
            from_s = max(from_s, min(commit.saved_s, to_s))
            found.append(Place(from_s, commit.iteration))
    return found


def _gap(before: Chapter, after: Chapter) -> list[Leg]:
    ended_s, began_s = before.ended_s or 0.0, after.began_s or 0.0
    level = after.from_iteration
    return [Leg("down", (Place(ended_s, level), Place(began_s, level)))] if began_s > ended_s else []
