"""Where a model hears an emotion in one recording, and whether its answer hangs on that.

    python examples/explain_one_file.py MODEL RECORDING [TEXT]

MODEL is the folder that `cli.py finetune` wrote. Its head's attention names the quarter of the
frames that weigh most; they are then taken out, and as many others at random, and the head is asked
again. Only where the first loses more is the attention worth looking at. `cli.py explain` does this
for a whole split, with intervals over speakers.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `python` looks for the package

from cache.audio import load_audio
from cache.encoders.grid import SAMPLE_RATE
from cache.frames import Frames
from finetune.model import EmotionModel
from heads.head import as_inputs, stack_logits

SHARE, DRAWS = 0.25, 20


def probabilities(model: EmotionModel, frames: Mapping[str, Frames]) -> Tensor:
    """`[C]` for one utterance."""
    return torch.softmax(stack_logits([model.head], as_inputs(frames))[0, 0], dim=-1)


def without(frames: Mapping[str, Frames], gone: Tensor) -> dict[str, Frames]:
    """The frames but for those audio frames."""
    audio = frames["audio"]
    kept = torch.ones(audio.total, dtype=torch.bool)
    kept[gone] = False
    left = Frames(audio.values[kept], torch.tensor([0, int(kept.sum())]))
    if audio.speech is not None:
        left = left.with_speech(audio.speech[kept])
    return {**frames, "audio": left}


def main(folder: Path, recording: Path, text: str = "") -> None:
    """Print the answer, the stretches attended, and what the answer loses without them."""
    model = EmotionModel.from_pretrained(folder)
    with torch.inference_mode():
        frames = model.encode([load_audio(recording)], [text])
        found = probabilities(model, frames)
        label = int(found.argmax())
        print(f"{recording.name}: {model.labels[label]} ({found[label]:.2f})")
        encoder = model.audio_encoder
        if encoder is None or model.head.attention_pooling("audio") is None:
            print("This head learns no attention over speech.")
            return
        weights = model.head.attention(frames, "audio").mean(1)  # [N] of one utterance
        count = max(1, round(SHARE * len(weights)))
        attended = weights.topk(count).indices
        seconds = [t * encoder.grid.hop / SAMPLE_RATE for t in sorted(attended.tolist())]
        print("attended, in seconds:", ", ".join(f"{second:.2f}" for second in seconds))
        generator = torch.Generator().manual_seed(0)
        others = [torch.randperm(len(weights), generator=generator)[:count] for _ in range(DRAWS)]
        lost = [
            float(found[label] - probabilities(model, without(frames, gone))[label])
            for gone in (attended, *others)
        ]
        print(f"probability lost without these frames: {lost[0]:+.3f}")
        print(f"without as many random ones: {sum(lost[1:]) / DRAWS:+.3f} ({DRAWS} draws)")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:4])
