"""Whisper in memory: pieces of speech in, texts out, with care for what nobody said.

Greedy decoding, each piece by itself: no text is carried from one to the next (a mistake would
be, too), and batch mates do not matter, because Whisper hears every piece as 30 s. Two guards of
the published method (Radford et al. 2023, section 4.5, with its constants):

- Silence: if the model's probability of "no speech" exceeds .6 and the mean log probability of its
  text is below -1, the text is dropped.
- Repetition: a text that gzip shrinks to less than 1/2.4 is a loop ("you you you"). It is decoded
  again at rising temperatures until it is none. The draws depend on the piece alone.

Long recordings in pieces that Whisper hears at once, cut where nobody speaks.

Whisper hears 30 s. Its own way through longer recordings (Radford et al. 2023, section 3.8) goes
from one predicted time stamp to the next: one after the other, and a wrong stamp drops or repeats
words. Cutting at pauses that a voice activity detector finds lets the pieces run side by side and
gives fewer words that nobody said (Bain et al. 2023, "WhisperX").
"""

from __future__ import annotations

import unicodedata
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoFeatureExtractor, AutoTokenizer, WhisperForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput

from cache.encoders.budget import Need, dictation_need
from cache.encoders.device import has_bf16_units, to_device
from cache.encoders.files import CHUNK, weight_files
from cache.encoders.grid import SAMPLE_RATE
from cache.encoders.hidden_states import first_line, loading, quiet, refuse_missing
from cache.transcribe.journal import Transcript
from corpora.base.errors import ConfigError, EmopoolError

PIECE_SECONDS = 30.0
#: Of one frame of the encoder's output, 20 ms.
FRAME_SAMPLES = 320
# A cut is looked for in the last third of what Whisper can hear.
_EARLIEST_SECONDS = 20.0
# A pause is where speech is least likely over so many chunks of 32 ms: .3 s, longer than the
# silence before a plosive.
_PAUSE_CHUNKS = 9


def cut_at_pauses(speech: NDArray[np.float32], samples: int) -> list[tuple[int, int]]:
    """Bounds of pieces that follow one another without gap.

    Args:
        speech: `[ceil(samples / 512)]`, the probability of speech in each chunk.
        samples: of the recording, at 16 kHz.

    Returns:
        First and one-past-last sample of each piece, at most 30 s apart.
    """
    longest, earliest = (
        round(seconds * SAMPLE_RATE / CHUNK) for seconds in (PIECE_SECONDS, _EARLIEST_SECONDS)
    )
    longest -= round(longest * CHUNK > PIECE_SECONDS * SAMPLE_RATE)
    around = np.convolve(speech, np.ones(_PAUSE_CHUNKS), mode="same")
    bounds = [0]
    while samples - bounds[-1] > PIECE_SECONDS * SAMPLE_RATE:
        first = bounds[-1] // CHUNK
        window = around[first + earliest : first + longest]
        # The middle of the chunk in the middle of the pause; of equal pauses the last.
        chunk = first + earliest + len(window) - 1 - int(np.argmin(window[::-1]))
        bounds.append(chunk * CHUNK)
    return list(zip(bounds, [*bounds[1:], samples], strict=True))


NO_SPEECH, LEAST_LOG_PROBABILITY, COMPRESSION = 0.6, -1.0, 2.4
TEMPERATURES = (0.2, 0.4, 0.6, 0.8, 1.0)


@dataclass(frozen=True, eq=False)
class Piece:
    """What is heard at once.

    Attributes:
        waveform: `[samples]` at 16 kHz, at most 30 s.
        language: the model is told; "" lets it detect.
    """

    waveform: NDArray[np.float32]
    language: str = ""


class Whisper:
    """A Whisper of transformers; `load_whisper` makes one."""

    def __init__(self, model: Any, front_end: Any, tokenizer: Any) -> None:  # noqa: ANN401 (untyped library)
        self._model = model
        self._front_end = front_end
        self._tokenizer = tokenizer
        settings = model.generation_config
        # Our own guards stand in for those a checkpoint may switch on; prompts are given whole.
        for name in ("compression_ratio_threshold", "logprob_threshold", "no_speech_threshold"):
            setattr(settings, name, None)
        settings.forced_decoder_ids = None
        # Without time stamps in the prompt a model should give none; one that does would make
        # transformers look for a next segment.
        stamps = range(settings.no_timestamps_token_id + 1, model.config.vocab_size)
        settings.suppress_tokens = sorted({*(settings.suppress_tokens or ()), *stamps})
        self._settings = settings
        heads = getattr(settings, "alignment_heads", None)
        #: Whether it says by which heads words can be timed.
        self.follows_sound = bool(heads)
        layers = range(model.config.decoder_layers // 2, model.config.decoder_layers)
        each = range(model.config.decoder_attention_heads)
        self._heads = heads or [(layer, head) for layer in layers for head in each]
        self._multilingual = getattr(settings, "is_multilingual", True)
        known = settings.lang_to_id if self._multilingual else {}
        self._languages = {number: token.strip("<|>") for token, number in known.items()}

    @property
    def need(self) -> Need:
        """Memory for the pieces of a batch."""
        return dictation_need(self._model.config, self._model.dtype.itemsize)

    def __call__(self, pieces: Sequence[Piece]) -> list[Transcript]:
        """The text of each piece.

        Raises:
            ConfigError: its settings have values that it cannot be run with.
        """
        try:
            return self._hear(pieces)
        except EmopoolError:
            raise
        # Wrong values in its JSON files are met where they are used. Want of memory is none of
        # these.
        except (TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
            raise ConfigError(
                f"{self._model.name_or_path} cannot be used as a Whisper model "
                f"({first_line(error)}). Copy its JSON files from the model that it was made of."
            ) from error

    def attention(
        self, pieces: Sequence[Piece], texts: Sequence[str]
    ) -> list[tuple[NDArray[np.int64], Tensor]]:
        """Where the decoder looks while it is told what is said in each piece.

        Args:
            pieces: what is heard.
            texts: what is said in each.

        Returns:
            Of each piece the characters `[tokens, 2]` of its text's tokens, and of these and the
            token that ends a text the attention `[heads, tokens + 1, frames]` by which each is
            found, over the frames of 20 ms that the piece fills. Of a text of more tokens than the
            decoder takes the first are left.
        """
        found = []
        with torch.inference_mode():
            encoded = self._encode([piece.waveform for piece in pieces])
            told = [piece.language for piece in pieces]
            detected = told if all(told) else self._first_step(encoded)[1]
            for number, (piece, text) in enumerate(zip(pieces, texts, strict=True)):
                prompt = self._prompt(piece.language or detected[number])
                most = self._model.config.max_target_positions - len(prompt)
                split = self._tokenizer(
                    f" {text}", add_special_tokens=False, return_offsets_mapping=True
                )
                spans = np.array(split["offset_mapping"][:most], np.int64).reshape(-1, 2) - 1
                tokens = torch.tensor([[*prompt, *split["input_ids"][:most]]]).to(encoded.device)
                looked = self._model(
                    encoder_outputs=BaseModelOutput(encoded[number : number + 1]),
                    decoder_input_ids=tokens,
                    use_cache=False,
                    output_attentions=True,
                ).cross_attentions
                weights = torch.stack([looked[layer][0, head] for layer, head in self._heads])
                # What is told last behind the prompt is found by the row before it.
                frames = -(-len(piece.waveform) // FRAME_SAMPLES)
                own = weights[:, len(prompt) - 1 :, :frames].float().cpu()
                found.append((spans, own / own.sum(dim=2, keepdim=True)))
        return found

    def _prompt(self, language: str) -> list[int]:
        """Start, language and task where the model knows several, and "no time stamps"."""
        settings = self._settings
        start, last = settings.decoder_start_token_id, settings.no_timestamps_token_id
        if not self._multilingual:
            return [start, last]
        told = settings.lang_to_id[f"<|{language}|>"]
        return [start, told, settings.task_to_id["transcribe"], last]

    def _hear(self, pieces: Sequence[Piece]) -> list[Transcript]:
        with torch.inference_mode():
            encoded = self._encode([piece.waveform for piece in pieces])
            no_speech, detected = self._first_step(encoded)
            languages = [
                piece.language or found for piece, found in zip(pieces, detected, strict=True)
            ]
            rows = self._decode(encoded, languages)
            found = []
            for number, (row, language) in enumerate(zip(rows, languages, strict=True)):
                own = encoded[number : number + 1]
                silent = (
                    no_speech[number] > NO_SPEECH
                    and self._log_probability(own, row) < LEAST_LOG_PROBABILITY
                )
                if not silent and compression(self._text(row)) > COMPRESSION:
                    row = self._decode_warmer(own, row, language, pieces[number].waveform)
                found.append(Transcript("" if silent else self._text(row), language, silent))
            return found

    def _encode(self, waveforms: Sequence[NDArray[np.float32]]) -> Tensor:
        """`[B, 1500, dim]`."""
        batch = self._front_end(
            list(waveforms),
            sampling_rate=SAMPLE_RATE,
            return_tensors="pt",
            device=str(self._model.device),
        )
        features = to_device(batch["input_features"], self._model.device).to(self._model.dtype)
        encoded: Tensor = self._model.get_encoder()(features).last_hidden_state
        return encoded

    def _first_step(self, encoded: Tensor) -> tuple[list[float], list[str]]:
        """Behind the start token: the probability of no speech, and the most probable language."""
        start = torch.full(
            (len(encoded), 1), self._settings.decoder_start_token_id, device=encoded.device
        )
        logits = self._logits(encoded, start)[:, 0]
        # "No speech" stands before "no time stamps" in every Whisper's vocabulary.
        no_speech = logits.softmax(-1)[:, self._settings.no_timestamps_token_id - 1].tolist()
        if not self._languages:
            return no_speech, ["en"] * len(encoded)
        numbers = torch.tensor(list(self._languages), device=encoded.device)
        best = numbers[logits[:, numbers].argmax(-1)].tolist()
        return no_speech, [self._languages[number] for number in best]

    def _decode(
        self, encoded: Tensor, languages: Sequence[str], temperature: float = 0.0
    ) -> list[list[int]]:
        """Tokens of each piece: prompt, text and, unless it is cut off, the end token."""
        told = {"language": list(languages), "task": "transcribe"} if self._multilingual else {}
        with quiet():
            rows = self._model.generate(
                encoder_outputs=BaseModelOutput(last_hidden_state=encoded),
                temperature=temperature,
                num_beams=1,
                return_timestamps=False,
                condition_on_prev_tokens=False,
                force_unique_generate_call=True,  # one call: nothing here is longer than 30 s
                **told,
            ).tolist()
        end, begin = self._settings.eos_token_id, self._prompt_length
        return [row[: row.index(end, begin) + 1] if end in row[begin:] else row for row in rows]

    @property
    def _prompt_length(self) -> int:
        """Start, language and task where the model knows several, and "no time stamps"."""
        return 4 if self._multilingual else 2

    def _decode_warmer(
        self, encoded: Tensor, row: list[int], language: str, waveform: NDArray[np.float32]
    ) -> list[int]:
        """Decode one piece again until its text is no loop; else the least repetitive of all."""
        tries = [row]
        devices = [encoded.device] if encoded.is_cuda else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(zlib.crc32(waveform.tobytes()))
            for temperature in TEMPERATURES:
                tries += self._decode(encoded, [language], temperature)
                if compression(self._text(tries[-1])) <= COMPRESSION:
                    break
        return min(tries, key=lambda one: compression(self._text(one)))

    def _log_probability(self, encoded: Tensor, row: Sequence[int]) -> float:
        """Mean over the tokens behind the prompt."""
        tokens = torch.tensor([row], device=encoded.device)
        log_probabilities = self._logits(encoded, tokens[:, :-1]).log_softmax(-1)
        of_tokens = log_probabilities.gather(-1, tokens[:, 1:, None])[0, :, 0]
        return float(of_tokens[self._prompt_length - 1 :].mean())

    def _logits(self, encoded: Tensor, tokens: Tensor) -> Tensor:
        """`[B, T, vocabulary]` in float32."""
        output = self._model(
            encoder_outputs=BaseModelOutput(last_hidden_state=encoded),
            decoder_input_ids=tokens,
            use_cache=False,
        )
        logits: Tensor = output.logits.float()
        return logits

    def _text(self, row: Sequence[int]) -> str:
        text = self._tokenizer.decode(row[self._prompt_length :], skip_special_tokens=True)
        kept = "".join(c for c in text if c.isspace() or unicodedata.category(c) != "Cc")
        return " ".join(kept.split())


def compression(text: str) -> float:
    """How many times smaller zlib makes a text; 0 for none."""
    raw = text.encode("utf-8")
    return len(raw) / len(zlib.compress(raw))


def load_whisper(directory: Path, *, device: str = "cpu", attention: bool = False) -> Whisper:
    """Load a Whisper from a directory that `find_whisper` gave.

    Args:
        directory: with everything. Code that comes with a model is never run.
        device: a GPU gets bfloat16, or float16 where it has no bfloat16; a CPU gets float32.
        attention: whether it is asked where it looks (`Whisper.attention`).

    Raises:
        ConfigError: it cannot be loaded, or weights are missing.
    """
    dtype = torch.float32
    if torch.device(device).type == "cuda":
        dtype = torch.bfloat16 if has_bf16_units(device) else torch.float16
    safe = weight_files(directory)[0].suffix == ".safetensors"
    with loading(
        f"{directory} cannot be loaded as a Whisper model",
        "Check its JSON files and the weights, or copy it again.",
    ):
        model, report = WhisperForConditionalGeneration.from_pretrained(
            directory,
            local_files_only=True,
            use_safetensors=safe,
            dtype=dtype,
            output_loading_info=True,
            # Faster kernels do not keep their weights.
            **({"attn_implementation": "eager"} if attention else {}),
        )
        front_end = AutoFeatureExtractor.from_pretrained(directory, local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
    refuse_missing(directory, report["missing_keys"])
    with loading(
        f"{directory} cannot be used as a Whisper model",
        "Copy its generation_config.json from the model that this one was made of.",
    ):
        return Whisper(model.requires_grad_(False).eval().to(device), front_end, tokenizer)
