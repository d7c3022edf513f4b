"""A small picture made large by a pipeline of the Stable Diffusion family, under a sentence.

    pip install 'posteriori[pipelines]'
    hf download stable-diffusion-v1-5/stable-diffusion-v1-5
    python stable_diffusion.py stable-diffusion-v1-5/stable-diffusion-v1-5 small.png \\
        "a cup of coffee on a wooden table" --device cuda --weights float16

The picture is the measurement: each of its pixels is the mean of FACTOR x FACTOR pixels of the
image that is looked for, plus noise of --sigma (1 is white). The first argument is a folder that
``save_pretrained`` of diffusers wrote, or a name that the hub's cache on this machine holds;
nothing is downloaded here. Samples are written as PNG files beside each other, and how well they
fit the picture is printed.

What to expect for a picture of 128 x 128 made 512 x 512 by Stable Diffusion 1.5. These are
estimates: from counted parameters and operations, and a gradient measured on a CPU (docs/latent.md
has the counts of the other pipelines, and the commands).

    weights       2.1 GB: 860 M parameters of 2 bytes, 84 M of the autoencoder of 4
    memory        2.2 GB more, what a gradient through the decoder took at this size
    operations    28 levels: 56 passes of the UNet under guidance, 45 TFLOP; 84 gradients through
                  the decoder, each about 4 decodings of 2.5 TFLOP, 840 TFLOP in float32
    time          those over what the machine does: 45 s a sample at 20 TFLOP/s

``python stable_diffusion.py ... --plan`` times one step here and says what the whole would take.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

import posteriori as po
from posteriori.problem_file.entries import entries, read_entries


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("pipeline", help="a folder, or owner/model in the hub's cache")
    parser.add_argument("picture", type=Path, help="the small picture, PNG or TIFF")
    parser.add_argument("text", help="what it shows; '' for nothing")
    parser.add_argument("--factor", type=int, default=4, help="how much larger")
    parser.add_argument("--sigma", type=float, default=0.01, help="its noise, white being 1")
    parser.add_argument("--method", default="FlowDPS(published)", help="as compare takes it")
    parser.add_argument("--guidance", type=float, default=2.0, help="of the text; 1 for none")
    parser.add_argument("--steps", type=int, help="noise levels; by default the method's own")
    parser.add_argument("--n", type=int, default=1, help="samples")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--weights", default="float32", choices=["float32", "float16", "bfloat16"])
    parser.add_argument("--out", type=Path, default=Path("enlarged"))
    parser.add_argument("--plan", action="store_true", help="time one step and stop")
    return parser


def main(words: list[str] | None = None) -> None:
    told = options().parse_args(words)
    prior = po.priors.from_diffusers_pipeline(told.pipeline, told.device, weights=told.weights)
    method = entries(read_entries([told.method]))[0].method

    y, _ = po.measurements.read_image(told.picture, channels=3)
    side = max(prior.autoencoder.factor * prior.prior.multiple // told.factor, 1)
    y = y[:, : y.shape[1] // side * side, : y.shape[2] // side * side]
    shape = (3, y.shape[1] * told.factor, y.shape[2] * told.factor)
    A = po.operators.Downsample(shape, told.factor)
    like = po.Likelihood(y, A, po.noise.Gaussian(told.sigma), range=(0, 1))
    post = po.Posterior(prior.conditioned(text=told.text, guidance=told.guidance), like)
    if told.plan:
        print(post.plan(method, n=told.n, steps=told.steps))
        return
    run = po.sample(post, method, n=told.n, steps=told.steps, seed=told.seed, progress=True)
    told.out.mkdir(parents=True, exist_ok=True)
    for k, image in enumerate(run.samples):
        po.measurements.write_image(
            told.out / f"sample-{k:03}.png", image.clamp(0, 1), range=(0, 1)
        )
    with torch.no_grad():
        fit = post.given.chi2(run.samples)
    print(
        f"{len(run.samples)} samples in {told.out}; chi-square a number of the picture: "
        f"{', '.join(f'{value:.2f}' for value in fit.tolist())} (about 1 for the truth)"
    )


if __name__ == "__main__":
    main()
