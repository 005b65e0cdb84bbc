#!/usr/bin/env bash
# Installs lists of this folder into an environment, everything by its hash: requirements/install.sh PYTHON lock model …
# Without it, torch comes too: its CPU build where a package source has one, else the index's, with CUDA's libraries on
# Linux. TORCH_ARGS names another source, such as an index of the CPU build or of other CUDA builds; only for the latter, no
# hash is known.
# With --editable in place of lists, the project itself.
set -euo pipefail
python=$1
[[ $python == /* || $python != */* ]] || python=$PWD/$python
shift
cd "$(dirname "$0")"
read -ra source <<< "${TORCH_ARGS:-}"
torch=$(grep --only-matching '^torch==[0-9.]*' torch.txt)
output=$(mktemp)
trap 'rm -f "$output"' EXIT

by_pip() {
  "$python" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation "$@"
}

# pip's setting, from its environment variable or its files; uv reads neither.
settings=$("$python" -m pip config list)
setting() {
  sed -n "s/^:env:\.$1='\(.*\)'$/\1/p; s/^[a-z]*\.$1='\(.*\)'$/\1/p" <<< "$settings" | head -n 1
}
if [ -z "${HTTPS_PROXY:-${https_proxy:-}}" ] && [ -n "$(setting proxy)" ]; then
  HTTPS_PROXY=$(setting proxy)
  export HTTPS_PROXY
fi

# uv downloads and unpacks several packages at a time: the system's, else the one of uv.txt. It stores no bytecode unless
# UV_COMPILE_BYTECODE=1. All of pip's indexes are asked, as pip does; the hashes decide.
if program=$(command -v uv); then
  uv=("$program")
else
  uv=("$python" -m uv)
  "${uv[@]}" --version &> /dev/null || by_pip --require-hashes --only-binary :all: --requirement uv.txt || uv=()
fi
by_uv() {
  [ ${#uv[@]} -gt 0 ] || return 1
  UV_DEFAULT_INDEX=$(setting index-url) UV_INDEX=$(setting extra-index-url) UV_INDEX_STRATEGY=unsafe-best-match \
    UV_FIND_LINKS=$(setting find-links | tr ' ' ',') SSL_CERT_FILE=${SSL_CERT_FILE:-$(setting cert)} \
    "${uv[@]}" --no-config pip install --quiet --python "$python" --no-deps --no-build-isolation "$@"
}

# pip reads settings that uv does not know. A package with another hash is refused by both.
install() {
  by_uv "$@" 2> "$output" && return
  cat "$output" >&2
  if grep --ignore-case --quiet 'hash mismatch' "$output"; then return 1; fi
  echo "uv cannot install these; pip does, which takes minutes …"
  by_pip "$@" && return
  index=$(setting index-url | sed 's|//[^/@]*@|//|')  # without a password
  echo "Index of packages: ${index:-the default of pip}" >&2
  return 1
}

has_cpu_build() {
  if [ ${#uv[@]} -gt 0 ] && [ ${#source[@]} -eq 0 ]; then
    by_uv --dry-run --require-hashes --requirement torch-cpu.txt &> /dev/null
  else
    "$python" -m pip index versions torch ${source[@]+"${source[@]}"} 2> /dev/null | grep --fixed-strings "${torch#torch==}+cpu" > /dev/null
  fi
}

if [ "$1" = --editable ]; then
  install --editable ..
  exit
fi
lists=("${@/%/.txt}")
installed=$("$python" -c 'import importlib.metadata as packages; print(packages.version("torch"))' 2> /dev/null || true)
"$python" -c 'import babel, hatchling, setuptools' 2> /dev/null || install --require-hashes --requirement=build.txt
if [ "${installed%%+*}" != "${torch#torch==}" ]; then
  if has_cpu_build; then
    if [ ${#source[@]} -gt 0 ]; then
      by_pip --require-hashes --requirement=torch-cpu.txt "${source[@]}"
    else
      lists+=(torch-cpu.txt)
    fi
  elif [ ${#source[@]} -gt 0 ]; then
    "$python" -m pip install --quiet --disable-pip-version-check "$torch" "${source[@]}"
  else
    lists+=(torch.txt)
  fi
fi
install --require-hashes "${lists[@]/#/--requirement=}"
# `pip check` fails where something is missing, which is what it is asked here.
missing=$("$python" -m pip check || true)
if [[ " ${lists[*]} " == *" torch.txt "* ]] && grep --quiet '^torch .* nvidia-' <<< "$missing"; then
  install --require-hashes --requirement=cuda.txt
fi
# Kernels of Liger for trainings on a GPU, with torch's CUDA builds, which bring triton. Training goes on without them.
has_triton='import importlib.util as modules; print("triton" if modules.find_spec("triton") else "")'
if [[ " ${lists[*]} " == *" lock.txt "* && $("$python" -c "$has_triton") == triton ]]; then
  install --require-hashes --requirement=gpu.txt || echo "liger-kernel cannot be installed: trainings do without its kernels."
fi
