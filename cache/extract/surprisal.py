"""How surprising each word of a text is: bits a word, kept in the cache beside the tokens.

`WORK/features.zarr/surprisal-<fingerprint>/values/` holds `[words, 1]` float32 under the key of an
utterance's own text. The words are what white space separates (`cache.encoders.language_model`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from cache.config import ExtractConfig
from cache.encoders.device import choose_device
from cache.encoders.files import encoder_fields
from cache.encoders.names import encoder_name, resolve_encoder
from cache.keys import normalise_text, text_key
from cache.last_extraction import SURPRISAL, VALUES, Source
from cache.lookup import FrameCache
from cache.recipe import Recipe
from cache.store.layout import ensure_stream, open_features
from cache.stream import FrameStream, PartWriter
from corpora.base.terminal import progress_bar
from corpora.utterance import Utterance

# How a word's bits are counted, counted up when they change.
_COUNTING = 1
# Texts at once, so that a run that is stopped loses little.
_CHUNK = 64


def extract_surprisal(
    cache: FrameCache,
    utterances: Sequence[Utterance],
    config: ExtractConfig,
    *,
    tell: Callable[[str], None] | None = None,
    show_progress: bool = False,
) -> Source:
    """Bring the stream of a language model up to these utterances' texts.

    Raises:
        ConfigError: it is no language model, or its head was not trained.
    """
    name = config.surprisal_model
    directory = resolve_encoder(name, "text", cache.root)
    fields = encoder_fields(directory, "text", cache.hashes)
    fields |= {"counting": _COUNTING, "compute_dtype": "fp32", "stored_dtype": "float32"}
    recipe = Recipe(SURPRISAL, fields)
    source = Source(recipe, encoder_name(name, directory))
    path = cache.features / source.stream()
    texts = {text_key(u.text): normalise_text(u.text) for u in utterances if u.text.strip()}
    held = FrameStream.open(path) if path.is_dir() else ()
    lacking = [key for key in texts if key not in held]
    if not lacking:
        return source
    from cache.encoders.language_model import load_language_model  # imports torch: seconds

    model = load_language_model(directory, device=choose_device(config.device))
    path = ensure_stream(open_features(cache.features), recipe, VALUES, 1, np.float32)
    with (
        PartWriter(path, 1, np.float32) as writer,
        progress_bar("surprisal", len(lacking), "texts", show=show_progress) as bar,
    ):
        for first in range(0, len(lacking), _CHUNK):
            chunk = lacking[first : first + _CHUNK]
            for key, bits in zip(chunk, model([texts[key] for key in chunk]), strict=True):
                if len(bits):  # not where the first word is too long already
                    writer.add(key, bits[:, None])
            bar.update(len(chunk))
    if tell is not None:
        how = "masked" if model.masked else "causal"
        tell(f"Surprisal of {len(lacking):,} texts by {name}, a {how} language model.")
    return source
