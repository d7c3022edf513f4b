#!/usr/bin/env bash
# Different seeds, one stream: numpy fills lists up with zeros, torch takes 32 bits.
#
# A stream for each image and sample is often seeded by a list, default_rng([seed, image]), or by
# one integer, manual_seed((image << 32) + sample) or a 64-bit hash. numpy writes a list as 32-bit
# words one after the other, with zeros up to the fourth: [7, 0] is [7] is 7, and a seed above 2^32
# is two entries of a list. torch accepts 64 bits, gives them back as initial_seed(), and seeds its
# CPU generator by the lower 32 alone. Nothing is said. The noise of image 0 is then the truth that
# was drawn from the seed itself, or the noise of all images is the same, and means over images do
# not get better with their number. SeedSequence(seed, spawn_key=(image, sample)) tells all apart;
# torch seeds from its generate_state(1) use 32 bits.
#
# Seen with numpy 2.3.5 and torch 2.13.0 (CPU): default_rng(7) and ([7, 0]), (7 + 3 * 2^32) and
# ([7, 3]), manual_seed(5) and (5 + 2^32) draw the same numbers; averaged over 64 images, noise of
# std 1 keeps 1.007 with torch seeds (image << 32) + 1, 0.125 (right, 1 in 8) with the seeds image.
# Exit 0 while that is so, 1 when it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile torch==2.13.0 numpy==2.3.5
"$folder/venv/bin/python" -W error - <<'PY'
import sys

import numpy as np
import torch

print(f"numpy {np.__version__}, torch {torch.__version__}: correlation of 4096 draws")


def by_numpy(seed):
    return np.random.default_rng(seed).standard_normal(4096)


def by_key(*key):
    return by_numpy(np.random.SeedSequence(7, spawn_key=key))


def by_torch(seed):
    return torch.randn(4096, generator=torch.Generator().manual_seed(seed)).double().numpy()


def alike(a, b):
    return float(np.corrcoef(a, b)[0, 1])


same = {
    "numpy 7 and [7, 0]": alike(by_numpy(7), by_numpy([7, 0])),
    "numpy [7, 2] and [7, 2, 0]": alike(by_numpy([7, 2]), by_numpy([7, 2, 0])),
    "numpy 7 + 3 * 2^32 and [7, 3]": alike(by_numpy(7 + 3 * 2**32), by_numpy([7, 3])),
    "torch 5 and 5 + 2^32": alike(by_torch(5), by_torch(5 + 2**32)),
    "torch 5 and 5 + 2^63": alike(by_torch(5), by_torch(5 + 2**63)),
}
apart = {
    "numpy [7, 1] and [7, 2]": alike(by_numpy([7, 1]), by_numpy([7, 2])),
    "numpy keys () and (0,)": alike(by_key(), by_key(0)),
    "numpy keys (2,) and (2, 0)": alike(by_key(2), by_key(2, 0)),
    "torch 5 and 6": alike(by_torch(5), by_torch(6)),
}
for name, value in (same | apart).items():
    print(f"  {name:30s} {value:6.3f}")
kept = {
    "(image << 32) + 1": np.mean([by_torch((k << 32) + 1) for k in range(64)], 0).std(),
    "image": np.mean([by_torch(k) for k in range(64)], 0).std(),
}
for name, value in kept.items():
    print(f"  noise left of 64 images, torch seeds {name:18s} {value:.3f} (right: 0.125)")
told = torch.Generator().manual_seed(5 + 2**32).initial_seed()
print(f"  torch says that its seed was {told}")
assert told == 5 + 2**32, "torch gives another seed back"
assert max(abs(v) for v in apart.values()) < 0.1, "seeds that should differ do not"
assert abs(kept["image"] - 0.125) < 0.02, "seeds that should differ do not"
if min(same.values()) < 0.999 or kept["(image << 32) + 1"] < 0.9:
    print("changed: one of the pairs of seeds has two streams now")
    sys.exit(1)
print("as found: different seeds have one stream")
PY
