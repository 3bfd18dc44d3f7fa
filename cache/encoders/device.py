"""Which device the encoders run on."""

from __future__ import annotations

from pathlib import Path

from corpora.base.errors import ConfigError

DEVICES = ("auto", "cpu", "cuda")


def choose_device(name: str) -> str:
    """`cpu` or `cuda`; `auto` takes a GPU where there is one.

    Torch is imported only where the driver of a GPU is present: asking it takes seconds, and a
    laptop without one should not wait for the answer.

    Raises:
        ConfigError: an unknown name, or `cuda` without a usable GPU.
    """
    if name not in DEVICES:
        raise ConfigError(f"device must be one of {', '.join(DEVICES)}, got {name!r}")
    usable = name != "cpu" and _cuda_is_usable()
    if name == "cuda" and not usable:
        raise ConfigError(
            "--device cuda: PyTorch finds no usable GPU here. Check the driver and that PyTorch "
            "was installed with CUDA, or use --device cpu."
        )
    return "cuda" if usable else "cpu"


def _cuda_is_usable() -> bool:
    if not any(Path(device).exists() for device in ("/dev/nvidiactl", "/dev/dxg")):
        return False
    import torch

    return torch.cuda.is_available()
