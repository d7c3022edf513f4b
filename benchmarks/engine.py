"""The network prior of photographs in two builds of this package: calls a second, what they return,
and MMPS.

    python benchmarks/engine.py CHECKOUT                     (this build against another)
    python benchmarks/engine.py CHECKOUT --parts calls --rounds 20

CHECKOUT is a folder of this repository at another commit, such as `git worktree add` makes. Each
build is a process of its own on the same interpreter. They take turns: one works while the other
waits, first the one, then the other, so that what else the machine does hits both. A ratio is the
median over rounds of the ratio of the two times of one round. "default" is the precision of
`posteriori solve` for a problem file that states none.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent.parent
SIGMAS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
PRECISIONS = ("default", "float32", "bfloat16")


class Build:
    """A process that works with one checkout."""

    def __init__(self, checkout: Path, threads: int) -> None:
        env = os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": str(threads)}
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve()), "--serve", str(threads)],
            env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=checkout,
        )  # fmt: skip

    def ask(self, what: str, *arguments: Any) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps([what, *arguments]), file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())


class Work:
    """What a process can be asked. Only names that both builds have."""

    def __init__(self) -> None:
        import torch

        import posteriori as po
        from posteriori.measurements.photos import COFFEE

        self.torch, self.po = torch, po
        self.image = 2 * po.measurements.read_image(COFFEE, channels=3)[0] - 1
        self.priors: dict[str, Any] = {}

    def prior(self, precision: str) -> Any:
        if precision not in self.priors:
            stated = self.default() if precision == "default" else precision
            autocast = None if stated == "float32" else stated
            self.priors[precision] = self.po.priors.photos(autocast=autocast)
        return self.priors[precision]

    def default(self) -> str:
        from posteriori import problem_file
        from posteriori.measurements.photos import COFFEE

        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder) / "problem.yaml"
            place.write_text(
                "prior: photos\noperator: {name: blur, std: 2.0, boundary: circular}\n"
                "noise: {law: gaussian, sigma: 0.02, range: [0, 1]}\n"
                f"measurement: {{image: {COFFEE}}}\nmethod: MMPS\n"
            )
            return problem_file.load(place).build().posterior.prior.autocast or "float32"

    def noisy(self, batch: int, sigma: float) -> Any:
        g = self.torch.Generator().manual_seed(int(1000 * sigma))
        z = self.torch.randn(batch, *self.image.shape, generator=g)
        return self.image + sigma * z

    def calls(self, precision: str, batch: int) -> float:
        """Seconds of a call on ``batch`` images of 256 x 256."""
        prior, x = self.prior(precision), self.noisy(batch, 0.3)
        sigma = self.torch.tensor(0.3)
        with self.torch.no_grad():
            began = time.perf_counter()
            prior.denoise(x, sigma)
            return time.perf_counter() - began

    def products(self, precision: str) -> float:
        """Seconds of a vector-Jacobian product, the mean of five of one image."""
        x = self.noisy(1, 0.3)
        _, pull = self.prior(precision).linearize(x, self.torch.tensor(0.3))
        pull(x)
        began = time.perf_counter()
        for _ in range(5):
            pull(x)
        return (time.perf_counter() - began) / 5

    def denoised(self, precision: str) -> list[float]:
        """PSNR in decibels at each of SIGMAS."""
        out = []
        for sigma in SIGMAS:
            with self.torch.no_grad():
                x0 = self.prior(precision).denoise(self.noisy(1, sigma), self.torch.tensor(sigma))
            out.append(float(self.po.evaluation.psnr(x0, self.image[None], 2.0)))
        return out

    def mmps(self, precision: str, steps: int, keep: str) -> list[Any]:
        """Seconds of a run of MMPS on a blurred photograph, its PSNR and its calls; the sample goes
        to the file ``keep``."""
        po, torch = self.po, self.torch
        truth = (self.image + 1) / 2
        A = po.operators.Blur(
            po.operators.gaussian_kernel(2.0), tuple(truth.shape), boundary="circular"
        )
        g = torch.Generator().manual_seed(5)
        y = A(truth[None])[0] + 0.02 * torch.randn(truth.shape, generator=g)
        post = po.Posterior(
            self.prior(precision), po.Likelihood(y, A, po.noise.Gaussian(0.02), range=(0.0, 1.0))
        )
        levels = po.grid.karras(steps, 4.0, 0.01)
        began = time.perf_counter()
        run = po.sample(post, po.methods.MMPS(), n=1, grid=levels, seed=0)
        seconds = time.perf_counter() - began
        torch.save(run.samples, keep)
        found = float(po.evaluation.psnr(run.samples, truth[None], 1.0))
        return [seconds, found, run.counts]


def serve(threads: int) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what anything prints is no answer
    import torch

    torch.set_num_threads(threads)
    work = Work()
    for line in sys.stdin:
        what, *arguments = json.loads(line)
        print(json.dumps(getattr(work, what)(*arguments)), file=answers, flush=True)


def ratio(old: list[float], new: list[float]) -> str:
    """Median of the ratios of the rounds, with quartiles, and the ratio of the least times."""
    each = [a / b for a, b in zip(old, new, strict=True)]
    low, middle, high = statistics.quantiles(each, n=4) if len(each) > 1 else [each[0]] * 3
    return (
        f"x {middle:.2f} (quartiles {low:.2f} to {high:.2f}; least times {min(old):.3f} s and "
        f"{min(new):.3f} s: x {min(old) / min(new):.2f})"
    )


def interleaved(old: Build, new: Build, rounds: int, what: str, *arguments: Any) -> str:
    times: tuple[list[float], list[float]] = ([], [])
    for k in range(rounds + 1):
        for build, kept in zip((old, new), times, strict=True):
            seconds = build.ask(what, *arguments)
            if k:  # the first packs weights and fills caches
                kept.append(seconds)
    return ratio(*times)


def tell_mmps(old: Build, new: Build, precisions: list[str], steps: int, rounds: int) -> None:
    import torch

    with tempfile.TemporaryDirectory() as folder:
        for precision in precisions:
            files = [str(Path(folder) / f"{precision}-{name}.pt") for name in ("old", "new")]
            rows = [
                [b.ask("mmps", precision, steps, f) for b, f in zip((old, new), files, strict=True)]
                for _ in range(rounds)
            ]
            a, b = (torch.load(f) for f in files)
            gap = float((a - b).square().mean().sqrt())
            print(
                f"MMPS, {precision}: {ratio([r[0][0] for r in rows], [r[1][0] for r in rows])}; "
                f"samples differ by {gap:.2e} (root mean square, of [0, 1]); "
                f"PSNR {rows[0][0][1]:.3f} and {rows[0][1][1]:.3f} dB; "
                f"calls {rows[0][0][2]} and {rows[0][1][2]}",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("checkout", type=Path, nargs="?")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--runs", type=int, default=2, help="rounds of MMPS")
    parser.add_argument("--steps", type=int, default=2, help="of MMPS")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--parts", nargs="+", default=["calls", "products", "psnr", "mmps"],
        choices=["calls", "products", "psnr", "mmps"],
    )  # fmt: skip
    parser.add_argument("--precisions", nargs="+", default=list(PRECISIONS), choices=PRECISIONS)
    parser.add_argument("--serve", type=int)
    given = parser.parse_args()
    if given.serve:
        serve(given.serve)
        return
    if given.checkout is None or not (given.checkout / "posteriori").is_dir():
        parser.error("give the folder of a checkout to compare with")
    old, new = Build(given.checkout.resolve(), given.threads), Build(HERE, given.threads)
    print(f"default: {old.ask('default')} there, {new.ask('default')} here; old / new:", flush=True)
    for precision in given.precisions:
        if "calls" in given.parts:
            for batch in (1, 4):
                found = interleaved(old, new, given.rounds, "calls", precision, batch)
                print(f"calls, batch {batch}, {precision}: {found}", flush=True)
        if "products" in given.parts:
            found = interleaved(old, new, given.rounds, "products", precision)
            print(f"products, batch 1, {precision}: {found}", flush=True)
        if "psnr" in given.parts:
            there, here = (build.ask("denoised", precision) for build in (old, new))
            rows = zip(SIGMAS, there, here, strict=True)
            said = ", ".join(f"{s:g}: {a:.3f} {b:.3f} ({b - a:+.4f})" for s, a, b in rows)
            print(f"PSNR by sigma, {precision}: {said}", flush=True)
    if "mmps" in given.parts:
        tell_mmps(old, new, given.precisions, given.steps, given.runs)


if __name__ == "__main__":
    main()
