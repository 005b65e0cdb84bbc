#!/usr/bin/env bash
# Installs lists of this folder into an environment, everything by its hash: requirements/install.sh PYTHON lock model …
# torch comes first: its CPU build where a package source has one, else the index's, with CUDA's libraries on Linux.
# TORCH_ARGS names another source, such as an index of other CUDA builds; only for those, no hash is known.
set -euo pipefail
python=$1
[[ $python == /* || $python != */* ]] || python=$PWD/$python
shift
cd "$(dirname "$0")"
read -ra source <<< "${TORCH_ARGS:-}"
torch=$(grep --only-matching '^torch==[0-9.]*' torch.txt)

locked() {
  "$python" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --require-hashes "$@"
}

# pip's setting, from its environment variable or its files; uv reads neither.
setting() {
  "$python" -m pip config list | sed -n "s/^:env:\.$1='\(.*\)'$/\1/p; s/^[a-z]*\.$1='\(.*\)'$/\1/p" | head -n 1
}

# The same files by uv, which downloads and unpacks several at a time. It stores no bytecode unless UV_COMPILE_BYTECODE=1.
# All of pip's indexes are asked, as pip does; the hashes decide.
locked_by_uv() {
  locked --only-binary :all: --requirement uv.txt || return 1
  UV_DEFAULT_INDEX=$(setting index-url) UV_INDEX=$(setting extra-index-url) UV_INDEX_STRATEGY=unsafe-best-match \
    UV_FIND_LINKS=$(setting find-links | tr ' ' ',') SSL_CERT_FILE=${SSL_CERT_FILE:-$(setting cert)} \
    "$python" -m uv --no-config pip install --quiet --python "$python" --no-deps --no-build-isolation --require-hashes "$@"
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
lists=("${lists[@]/#/--requirement=}")
locked_by_uv "${lists[@]}" || { echo "uv cannot install these; pip does, which takes minutes …"; locked "${lists[@]}"; }
