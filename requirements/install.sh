#!/usr/bin/env bash
# Installs lists of this folder into an environment, everything by its hash: requirements/install.sh PYTHON lock model …
# torch comes first: its CPU build where a package source has one, else the index's, with CUDA's libraries on Linux.
# TORCH_ARGS names another source, such as an index of other CUDA builds; only for those, no hash is known.
set -euo pipefail
python=$1
shift
cd "$(dirname "$0")"
read -ra source <<< "${TORCH_ARGS:-}"
torch=$(grep --only-matching '^torch==[0-9.]*' torch.txt)

locked() {
  "$python" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --require-hashes "$@"
}

locked --requirement build.txt
if "$python" -m pip index versions torch "${source[@]}" 2> /dev/null | grep --fixed-strings "${torch#torch==}+cpu" > /dev/null; then
  locked --requirement torch-cpu.txt "${source[@]}"
elif [ -n "${TORCH_ARGS:-}" ]; then
  "$python" -m pip install --quiet --disable-pip-version-check "$torch" "${source[@]}"
else
  locked --requirement torch.txt
fi
if "$python" -m pip check | grep '^torch .* nvidia-' > /dev/null; then
  locked --requirement cuda.txt
fi
lists=("${@/%/.txt}")
locked "${lists[@]/#/--requirement=}"
