"""Whether a manifest is the one a head or a model was made from: else its splits are no others'."""

from __future__ import annotations

from corpora.errors import ConfigError
from corpora.manifest import Manifest
from heads.origin import manifest_digest


def other_manifest_note(
    subject: str, corpus: str, digest: str, manifest: Manifest, *, searched: str = ""
) -> str:
    """What to say where something is scored on another manifest than its own.

    Another corpus may be scored on. The same one with other rows, labels or splits may not: what
    is now called test may have been trained on.

    Args:
        subject: `head` or `model`.
        corpus: the name of the corpus it was made from.
        digest: of the manifest it was made from; "" where that is not known.
        manifest: whose utterances are to be scored.
        searched: for a model, the digest of the manifest its head was searched on.

    Returns:
        A sentence for the result; "" where the manifest is the same, or that is not known.

    Raises:
        ConfigError: the manifest is of the same corpus and has changed.
    """
    now = manifest_digest(manifest)
    made = "searched" if subject == "head" else "trained"
    if digest not in ("", now) and corpus == manifest.corpus:
        again = "`search`" if subject == "head" else "`search` and `finetune`"
        raise ConfigError(
            f"the manifest of {corpus or 'this corpus'} has changed since the {subject} was {made} "
            "(rows, labels or splits): what it was trained on may now be in another split. "
            f"Run {again} again, or name the manifest of that time with --manifest. If it is "
            "another corpus, give it a name of its own: `corpus` in the manifest's JSON file."
        )
    if digest not in ("", now) or searched not in ("", now):
        made = made if digest not in ("", now) else "first searched"
        return (
            f"This manifest is not the one the {subject} was {made} on: the split may hold "
            "recordings it was trained on."
        )
    return ""
