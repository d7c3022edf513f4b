#!/usr/bin/env bash
# MONAI's DDPMScheduler with fewer steps than the training takes small steps and leaves the noise in.
#
# set_timesteps(n) spreads n of the 1000 timesteps over the range, but step(x, t) goes from t to
# t - 1, never to the next of them: n of the 1000 small steps are taken, each at a level that the
# sample does not have. Nothing is said: the output of DiffusionInferer lies between a sample and
# the noise that it began with. DDIMScheduler of the same library goes to the next timestep, as the
# ancestral step between any two levels does. With all 1000 steps both are right.
#
# Seen with monai 1.6.1 and torch 2.13.0, a prior N(0, 0.5^2), whose best denoiser is known, from
# unit noise: samples have a std of 0.498, 0.616, 0.873, 0.973 after 1000, 500, 100, 20 steps of
# DDPMScheduler; after 100 of DDIMScheduler 0.491, after 100 ancestral steps written out 0.470.
# Exit 0 while that is so, 1 when it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile monai==1.6.1 torch==2.13.0 numpy==2.3.5
"$folder/venv/bin/python" - <<'PY' 2> /dev/null
import sys

import monai
import torch
from monai.inferers import DiffusionInferer
from monai.networks.schedulers import DDIMScheduler, DDPMScheduler

std = 0.5
levels = DDPMScheduler(num_train_timesteps=1000).alphas_cumprod


def noise_in(x, timesteps, context=None):
    """What the best network says of a prior N(0, std^2): E[eps | x_t] = sqrt(1 - a) x / v."""
    a = levels[int(timesteps[0])]
    return (1 - a).sqrt() * x / (a * std**2 + 1 - a)


def sampled(scheduler, steps):
    torch.manual_seed(0)
    scheduler.set_timesteps(steps)
    x = torch.randn(1, 1, 128, 128)
    x = DiffusionInferer(scheduler).sample(x, noise_in, scheduler, verbose=False)
    return float(x.std())


def ancestral(timesteps):
    """x_s ~ q(x_s | x_t, x_0 = D(x_t)) from each timestep t to the next one s."""
    torch.manual_seed(0)
    x = torch.randn(1, 1, 128, 128)
    for t, s in zip(timesteps, [*timesteps[1:], None]):
        a, b = levels[t], levels[s] if s is not None else torch.tensor(1.0)
        clean = (x - (1 - a).sqrt() * noise_in(x, [t])) / a.sqrt()
        mean = b.sqrt() * (1 - a / b) * clean + (a / b).sqrt() * (1 - b) * x
        x = mean / (1 - a) + ((1 - a / b) * (1 - b) / (1 - a)).sqrt() * torch.randn_like(x)
    return float(x.std())


print(f"monai {monai.__version__}, torch {torch.__version__}: std of samples, right {std}")
ddpm, ddim, right = {}, {}, {}
for steps in (1000, 500, 100, 20):
    scheduler = DDPMScheduler(num_train_timesteps=1000, clip_sample=False)
    ddpm[steps] = sampled(scheduler, steps)
    ddim[steps] = sampled(DDIMScheduler(num_train_timesteps=1000, clip_sample=False), steps)
    right[steps] = ancestral(scheduler.timesteps.tolist())
    found = f"DDPMScheduler {ddpm[steps]:.3f}, DDIMScheduler {ddim[steps]:.3f}"
    print(f"{steps:4d} steps: {found}, ancestral steps written out {right[steps]:.3f}")
assert abs(ddpm[1000] - std) < 0.02, "1000 steps of DDPMScheduler are no longer right"
assert max(abs(v[100] - std) for v in (ddim, right)) < 0.04, "the two others are off at 100 steps"
if ddpm[100] < 0.8 or ddpm[20] < 0.9:
    sys.exit("changed: a step of DDPMScheduler goes to the next timestep")
print("as described: DDPMScheduler with fewer steps leaves most of the noise in")
PY
