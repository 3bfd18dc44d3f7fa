#!/bin/sh
# Extraction at full size on one GPU: hours of audio a minute, share of time in the encoders,
# TFLOP/s, GPU memory, and what 78 hours of speech would take. Under 8 minutes; makes its own data.
#
#   bench/gpu.sh                      PYTHON=python3.12 bench/gpu.sh --hours 4
#   bench/gpu.sh --toy                tries the script itself, on a CPU, in a minute
#   bench/gpu.sh search [--toy]       100 trials of the head search on 49,248 utterances instead:
#                                     14 million frames of 1024, 28.8 GB, all on the GPU
#   bench/gpu.sh finetune             extract, search and two steps of each phase with the full
#                                     encoders; prints steps and the most host memory in bytes
#
# Needs in $PYTHON (default python3): torch with CUDA, transformers 5, numpy, click, tqdm,
# safetensors, tokenizers, sentencepiece, protobuf; and soundfile (with cffi), soxr, silero-vad,
# google-crc32c. Nothing is downloaded: encoders have random weights, recordings are made up.
# The search needs optuna, sqlalchemy and scikit-learn besides, fine-tuning accelerate too. 10 GB on
# the disk of $TMPDIR, removed at the end. Exit status 2: no CUDA device.
set -eu
cd "$(dirname "$0")/.."
PYTHONPATH=".${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONPATH
python="${PYTHON:-python3}"
for module in torch transformers numpy click tqdm safetensors tokenizers sentencepiece \
    google.protobuf soundfile soxr silero_vad google_crc32c; do
    "$python" - "$module" <<'EOF' || { echo "$python has no $module; bench/gpu.sh lists what is needed." >&2; exit 1; }
import importlib.util, sys
try:
    found = importlib.util.find_spec(sys.argv[1])
except ModuleNotFoundError:
    found = None
sys.exit(found is None)
EOF
done
if [ "${1:-}" = finetune ]; then
    folder="$(mktemp -d)"
    trap 'rm -rf "$folder"' EXIT
    "$python" -m tests.finetune.full_size "$folder" cuda 8000
    exit
fi
if [ "${1:-}" = search ]; then
    shift
    exec "$python" -m bench.gpu_search "$@"
fi
exec "$python" -m bench.gpu "$@"
