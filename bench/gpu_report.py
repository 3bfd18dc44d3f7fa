"""What `bench/gpu.sh` measures, in words."""

from __future__ import annotations

from dataclasses import dataclass

from corpora.base.terminal import bytes_text

# The corpus of Leygue et al. 2025, and the goal for it on one H200.
GOAL_HOURS, GOAL_MINUTES = 78.0, 4.0


@dataclass(frozen=True)
class Figures:
    """Measured on one device; "an hour" is of audio, and in seconds.

    Attributes:
        device: its name.
        hours: of audio in the larger extraction.
        recordings: in it, each with a text.
        audio_seconds: its audio, energy and speech streams took, everything included.
        text_seconds: its text stream took, everything included.
        audio_seconds_an_hour: without what a run does once.
        text_seconds_an_hour: the same for text.
        once_seconds: what a run does once.
        peak_bytes: of GPU memory.
        device_bytes: all GPU memory.
        encoder_an_hour: the audio encoder alone, front end included.
        front_end_an_hour: its front end alone.
        detector_an_hour: voice activity detection alone.
        text_encoder_an_hour: the text encoder alone.
        flop_a_second: of audio, in the audio encoder, padding included.
    """

    device: str
    hours: float
    recordings: int
    audio_seconds: float
    text_seconds: float
    audio_seconds_an_hour: float
    text_seconds_an_hour: float
    once_seconds: float
    peak_bytes: int
    device_bytes: int
    encoder_an_hour: float = 0.0
    front_end_an_hour: float = 0.0
    detector_an_hour: float = 0.0
    text_encoder_an_hour: float = 0.0
    flop_a_second: float = 0.0

    @property
    def goal_minutes(self) -> float:
        """What 78 hours with their texts would take, in minutes, start-up included."""
        rate = self.audio_seconds_an_hour + self.text_seconds_an_hour
        return (self.once_seconds + GOAL_HOURS * rate) / 60

    def to_text(self) -> str:
        """Several lines."""
        whole = self.audio_seconds + self.text_seconds
        rate = self.audio_seconds_an_hour + self.text_seconds_an_hour
        alone = self.encoder_an_hour + self.text_encoder_an_hour
        flop = self.flop_a_second * 3600
        memory = (
            f"{bytes_text(self.peak_bytes)} of {bytes_text(self.device_bytes)}"
            if self.device_bytes
            else "not measured"
        )
        return "\n".join(
            [
                f"Device: {self.device}",
                f"Extracted: {self.hours:.2f} hours of audio, {self.recordings:,} recordings with "
                f"texts, in {whole:.1f} s (audio, energy, speech {self.audio_seconds:.1f} s; text "
                f"{self.text_seconds:.1f} s)",
                f"Hours of audio a minute: {60 * self.hours / whole:.1f}; {60 / rate:.1f} without "
                f"the {self.once_seconds:.1f} s a run takes once",
                f"Time in the encoders: {alone / rate:.0%} (audio "
                f"{self.encoder_an_hour / self.audio_seconds_an_hour:.0%} of its pass, text "
                f"{self.text_encoder_an_hour / self.text_seconds_an_hour:.0%})",
                f"An hour of audio: {rate:.2f} s in all; alone: audio encoder "
                f"{self.encoder_an_hour:.2f} s, of which front end {self.front_end_an_hour:.2f} s; "
                f"voice activity {self.detector_an_hour:.2f} s; text encoder "
                f"{self.text_encoder_an_hour:.2f} s",
                f"Audio encoder: {self.flop_a_second / 1e9:.1f} GFLOP a second of audio, "
                f"{flop / self.encoder_an_hour / 1e12:.3g} TFLOP/s alone, "
                f"{flop / self.audio_seconds_an_hour / 1e12:.3g} TFLOP/s over its pass",
                f"GPU memory: {memory}",
                f"{GOAL_HOURS:.0f} hours, streams audio, text, energy, speech: "
                f"{self.goal_minutes:.1f} minutes (goal on one H200: under {GOAL_MINUTES:.0f})",
            ]
        )
