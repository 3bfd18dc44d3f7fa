"""What `cli.py export onnx` wrote, run without torch and without Emopool.

    pip install onnxruntime numpy soundfile
    python run_onnx.py model.onnx RECORDING [TEXT]

A model that reads the text too needs `tokenizers`, whose settings are in the file.
"""

from __future__ import annotations

import json
import sys
import unicodedata

import numpy as np
import onnxruntime
import soundfile


def main(model: str, recording: str, text: str = "") -> None:
    """Print each label with its probability, and attributes with their values."""
    session = onnxruntime.InferenceSession(model)
    known = session.get_modelmeta().custom_metadata_map
    inputs = {}
    for name in (one.name for one in session.get_inputs()):
        if name == "samples":
            sound, rate = soundfile.read(recording, dtype="float32", always_2d=True)
            if rate != int(known["sampling_rate"]):
                sys.exit(f"{recording} has {rate} Hz; resample it to {known['sampling_rate']} Hz.")
            low, high = int(known["shortest"]), int(known.get("longest", sys.maxsize))
            if not low <= len(sound) <= high:
                sys.exit(f"{recording} has {len(sound)} samples; expected {low} to {high}.")
            inputs[name] = sound.mean(axis=1)
        elif name == "tokens":
            from tokenizers import Tokenizer

            words = " ".join(unicodedata.normalize("NFC", text).split())
            inputs[name] = np.array(Tokenizer.from_str(known["tokenizer"]).encode(words).ids)
        else:
            sys.exit(f"{model} is a head: it reads frames ({name}), not recordings.")
    names = [one.name for one in session.get_outputs()]
    said = dict(zip(names, session.run(None, inputs), strict=True))
    for kind, values in (("labels", "probabilities"), ("attributes", "attributes")):
        for name, value in zip(json.loads(known[kind]), said.get(values, ()), strict=True):
            print(f"{name}: {value:.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
