"""What a study is made from, noted in it, so that values which cannot be compared never mix."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import Any

from optuna.study import Study

from corpora.base.errors import ConfigError

# The study's note that tells it from any other, even one of the same name.
STUDY_ID = "study_id"


def note_identity(study: Study, identity: Mapping[str, Any]) -> None:
    """Note what a new study is made from."""
    for name, value in identity.items():
        study.set_user_attr(name, value)
    study.set_user_attr(STUDY_ID, uuid.uuid4().hex)


def check_identity(study: Study, identity: Mapping[str, Any], place: str, remedy: str) -> None:
    """Refuse to go on with a study that was made from something else.

    Args:
        study: with its notes.
        identity: what makes values of two trials comparable.
        place: where the study is kept.
        remedy: what the user can do.

    Raises:
        ConfigError: they differ; each difference is shown.
    """
    known, now = (made.get("axis pooling", []) for made in (study.user_attrs, identity))
    if set(known) < set(now):
        since = ", ".join(name for name in now if name not in known)
        remedy = (
            f"If {since} came since: with --space FILE that has the line pooling = "
            f"{json.dumps(known)} the study goes on without. {remedy}"
        )
    refuse_differences(study.user_attrs, identity, f"{place} holds a search", remedy)


def refuse_differences(
    known: Mapping[str, Any], identity: Mapping[str, Any], holds: str, remedy: str
) -> None:
    """Refuse to mix with numbers that were made from something else.

    Args:
        known: what those that are kept were made from, as JSON reads it back.
        identity: what the new ones would be made from.
        holds: what is kept where, such as `work/compare holds a comparison`.
        remedy: what the user can do.

    Raises:
        ConfigError: they differ; each difference is shown.
    """
    differences = [
        f"  {name}: {_shown(known.get(name))} -> {_shown(value)}"
        for name, value in json.loads(json.dumps(identity)).items()
        if known.get(name) != value
    ]
    if differences:
        raise ConfigError(
            f"{holds} over something else, and their scores cannot be compared:\n"
            + "\n".join(differences)
            + f"\n{remedy}"
        )


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 100 else text[:99] + "…"
