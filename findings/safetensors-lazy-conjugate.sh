#!/usr/bin/env bash
# safetensors writes a lazily conjugated tensor without its conjugation, and says nothing.
#
# torch keeps x.conj() as a view of x with a flag: the memory holds x. The writer of safetensors copies the memory, so that coil maps,
# k-space or complex samples that were conjugated last come back with the sign of their imaginary part turned. resolve_conj() before
# saving is right. torch.save keeps the flag.
#
# Seen with safetensors 0.8.0 and torch 2.13.0 (CPU): saved 1-2j and 3+4j, read 1+2j and 3-4j.
# Exit 0 while that is so, 1 when it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet safetensors==0.8.0 torch==2.13.0 numpy==2.3.5 packaging==25.0
"$folder/venv/bin/python" - "$folder" <<'PY'
import sys

import safetensors
import torch
from safetensors.torch import load_file, save_file

folder = sys.argv[1]
x = torch.tensor([1 + 2j, 3 - 4j])
given = x.conj()
save_file({"x": given}, f"{folder}/lazy.safetensors")
save_file({"x": given.resolve_conj()}, f"{folder}/resolved.safetensors")
torch.save(given, f"{folder}/x.pt")
lazy, resolved = (load_file(f"{folder}/{name}.safetensors")["x"] for name in ("lazy", "resolved"))
print(f"safetensors {safetensors.__version__}, torch {torch.__version__}")
print(f"given {given.tolist()}  read back {lazy.tolist()}  after resolve_conj() {resolved.tolist()}")
assert torch.equal(resolved, given), "resolve_conj() before saving no longer helps"
assert torch.equal(torch.load(f"{folder}/x.pt", weights_only=True), given), "torch.save no longer keeps the conjugation"
if not torch.equal(lazy, x):
    sys.exit("changed: the conjugation is kept, or refused")
print("as described: the conjugation is lost without a word")
PY
