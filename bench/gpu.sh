#!/bin/sh
# What one GPU does with each stage: times beside kernels and host waits, idle share, share of the
# roofline and the lines in which the host waits; and that its numbers are the CPU's. Makes its own
# data; prints what it finds as it finds it.
#
#   bench/gpu.sh --out results        everything, in 8.8 minutes; PYTHON=python3.12 bench/gpu.sh ...
#   bench/gpu.sh --toy                tries the script itself, small and on a CPU
#   bench/gpu.sh heads                a training step of 25 heads
#   bench/gpu.sh extraction           W2V-BERT 2.0 and DeBERTa-v3-base; what 78 hours would take
#   bench/gpu.sh finetune             a step of phases 2 and 3
#   bench/gpu.sh commands             all commands with tiny encoders, beside the CPU's scores
#   bench/gpu.sh search --minutes 15  100 trials on 49,248 utterances, 30 GB of frames on the GPU
#
# --out FOLDER gets a file of JSON lines for each part, and all as a table, gpu.md. A part that fails
# is said and the others go on; the exit status is 1 then, and 2 where there is no CUDA device.
#
# Needs in $PYTHON (default python3): torch with CUDA, what pyproject.toml lists, and the project itself
# (pip install --no-deps --no-build-isolation -e .), whose version its records name.
# Nothing is downloaded: encoders have random weights, recordings are made up. 12 GB on the disk of
# $TMPDIR, removed at the end.
set -eu
cd "$(dirname "$0")/.."
PYTHONPATH=".${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONPATH
python="${PYTHON:-python3}"
lacks="$("$python" - accelerate click google_crc32c google.protobuf h5py jinja2 numpy optuna safetensors \
    scipy sentencepiece silero_vad sklearn soundfile soxr tokenizers torch tqdm transformers zarr <<'EOF'
import importlib.util, sys
for name in sys.argv[1:]:
    try:
        found = importlib.util.find_spec(name)
    except ModuleNotFoundError:
        found = None
    if found is None:
        print(name)
        break
EOF
)"
[ -z "$lacks" ] || { echo "$python has no $lacks; pyproject.toml lists what is needed." >&2; exit 1; }
"$python" -c 'import importlib.metadata as m; m.version("emopool")' 2>/dev/null || {
    echo "Emopool is not installed: $python -m pip install --no-deps --no-build-isolation -e ." >&2; exit 1; }
exec "$python" -m bench.gpu "$@"
