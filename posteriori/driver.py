"""The driver: the one loop that every method runs in.

It owns what a method must not: the noise grid, batching, random streams, counting, finiteness,
progress, checkpoints. Row k of a run is a function of (posterior, method, grid, seed, k): neither
the batch size nor the rows beside it enter (up to the rounding of batched arithmetic, about 1e-6).
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from posteriori import checkpoint
from posteriori import grid as grids
from posteriori.asked import check_counts, check_pairs
from posteriori.checkpoint import CheckpointNotes, Done, Pending
from posteriori.configuration import batch_rows, describe, make_levels
from posteriori.counting import CountedLinearOperator, Counter, counted
from posteriori.diagnostics import tell
from posteriori.likelihood import Likelihood, Posterior
from posteriori.linalg import per_row
from posteriori.methods.base import Info, Method
from posteriori.methods.courses import steps_of
from posteriori.methods.transitions import Heun
from posteriori.methods.unconditional import Unconditional
from posteriori.noise import ComplexGaussian, Gaussian, NoiseLaw
from posteriori.operators.null import Null
from posteriori.priors.base import Prior
from posteriori.progress import Heard
from posteriori.progress import Progress as Bar
from posteriori.rng import Streams
from posteriori.run import Run, Status, write_json
from posteriori.run_folder import keep
from posteriori.several import Several

Watch = Callable[[int, Tensor, Tensor, Info], None]
# Images at any level lie within a few times the largest one: numbers this far away come from an
# update that has exploded.
BEYOND = 1e6
ADVICE = {
    "denoiser": (
        "the denoiser's output was not finite; "
        "check the network's precision and its trained noise range"
    ),
    "method": (
        f"the update was not finite, or beyond {BEYOND:g} times the largest noise level; "
        "use more steps, a smaller guidance scale or a larger noise level"
    ),
    "cloud": (
        "the cloud has lost all its weight, no particle agrees with y; "
        "use more particles, more noise levels, a method that y guides, or a larger noise level"
    ),
}


def sample(
    post: Posterior,
    method: Method[Any],
    *,
    n: int = 1,
    steps: int | None = None,
    seed: int = 0,
    first: int = 0,
    antithetic: bool = False,
    grid: grids.GridName | Tensor | None = None,
    batch: int | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    watch: Sequence[Watch] = (),
    progress: bool | Heard = False,
    folder: str | Path | None = None,
    resume: bool = False,
    checkpoint_seconds: float = 20.0,
) -> Run:
    """Draw ``n`` samples of p(x | y).

    Parameters
    ----------
    post: prior and likelihood.
    method: any method of ``posteriori.methods``.
    n: samples returned, whatever the method does inside.
    steps: noise levels visited; 100 by default, and those of its paper for a published setting.
    grid: "karras", "log" or "ddpm" (levels that the prior was trained at, a DDPM's where it has
        none of its own), or a tensor of levels that ends at 0; None for the method's own choice or
        its paper's, else "karras".
    seed: integer >= 0; sample k depends on (seed, k).
    first: the number of the first sample: the run returns samples first to first + n - 1, so that
        ``Run.merge`` makes of several runs, on several machines, the one that would have drawn them
        all. A multiple of the samples that the method returns together.
    antithetic: samples 2 j and 2 j + 1 are driven by the same noise with opposite signs: each has
        the law of any sample. Their errors about the posterior mean cancel where the sampler is
        affine in the noise, for the most part where it is nearly so, and hardly where numbers
        choose between candidates (CBG); ``Run.standard_error`` tells. ``Run.std`` knows of it, and
        ``Run.independent`` has one of each pair. n and ``first`` must be even, and the method's
        rows stand alone. Source: Jia et al. 2026, who mirror the first noise alone; here all of it
        is, that of each step too.
    batch: rows worked on together; by default as many as keep a batch near a million numbers.
        Halved by itself when memory runs out.
    device, dtype: where and in which precision (float32 or float64) images are worked on, see
        ``Posterior.at_work``. By default where the prior's tensors are, in the precision of y. A
        network keeps the precision of its own.
    watch: functions (step, s, rows, info) called after each step of each batch.
    progress: show a bar for the whole run, or print lines about it where no terminal is; or a
        function of the steps done and of all, called before each step and at the end.
    folder: where to keep the run, batch by batch; with ``resume`` an interrupted run of the same
        prior, operator, noise, y and settings is completed there, to the same numbers. Another one
        is refused. The folder of a run that fails or is interrupted says why.
    checkpoint_seconds: time between checkpoints of the batch under way in ``folder``.

    Samples are returned on the CPU. Raises ``ValueError`` before the first denoiser call when the
    method refuses the problem, and ``FloatingPointError`` when every row diverged. A row that
    diverged alone is left out of the samples, reported in ``status`` and by a warning. Samples that
    do not fit the measurement, are all the same or count as few are returned with a ``RunWarning``
    that says so.
    """
    check_counts(n, first, batch, method.returned)
    check_pairs(antithetic, n, first, method)
    if resume and folder is None:
        raise ValueError("resume needs the folder of the run to go on with")
    post = post.at_work(device, dtype)
    steps, refusal = steps_of(method, steps), method.refuses(post)
    if refusal:
        raise ValueError(refusal)
    config = describe(post, method, n=n, first=first, seed=seed, steps=steps, antithetic=antithetic)
    job = Job(
        post,
        method,
        steps,
        grid,
        seed,
        n,
        first,
        batch or batch_rows(post, method, n),
        tuple(watch),
        progress,
        config,
        Counter(),
        antithetic=antithetic,
    )
    run = (
        job.run(None, checkpoint_seconds)
        if folder is None
        else keep(job, Path(folder), resume, checkpoint_seconds)
    )
    return tell(run, post, folder)


@dataclass
class Job:
    """One call of ``sample``: rows are worked off batch by batch, a batch step by step."""

    post: Posterior
    method: Method[Any]
    steps: int
    grid: grids.GridName | Tensor | None
    seed: int
    n: int
    first: int
    batch: int
    watch: tuple[Watch, ...]
    progress: bool | Heard
    config: dict[str, Any]
    counter: Counter
    several: Several | None = None
    antithetic: bool = False

    def __post_init__(self) -> None:
        self.levels, self.counted = torch.empty(0), counted(self.post, self.counter)
        self.kept: tuple[Done, CheckpointNotes | None] = (Done(), None)
        self.start = self.first // self.method.returned

    def visit(self, folder: Path, config: dict[str, Any]) -> None:
        """Take up what a folder holds. The method's own levels are those of then: a pilot is not
        run again."""
        self.kept = checkpoint.finished(folder)
        levels = torch.tensor(
            config["levels"], dtype=torch.float64, device=self.post.likelihood.y.device
        )
        if self.grid is not None and not torch.equal(self.all_levels()[0], levels):
            raise ValueError(
                f"the run in {folder} was started with the levels {config['levels']}, "
                "so it cannot be resumed with others"
            )
        if (
            self.kept[1] is not None
            or (folder / "checkpoint.safetensors").exists()
            or not config["pilot"]
        ):
            self.levels = levels
            self.config = self.config | {key: config[key] for key in ("levels", "grid", "pilot")}

    def prepare(self) -> None:
        """The levels, unless a folder had them."""
        if not len(self.levels):
            self.levels, spacing = self.all_levels()
            name = "the method's own" if spacing is None else "explicit"
            if isinstance(spacing, str):
                name = spacing
            pilot = any(self.counter.calls.values())
            found = {"grid": name, "levels": self.levels.tolist(), "pilot": pilot}
            self.config = self.config | found
        centre = self.post.prior.start(self.blank(1)[:1], self.levels[0])
        self.limit = BEYOND * float(self.levels[0] + centre.abs().max())

    def all_levels(self) -> tuple[Tensor, grids.GridName | Tensor | None]:
        return make_levels(self.counted, self.method, self.steps, self.grid)

    def run(self, folder: Path | None, every: float) -> Run:
        began, counter = time.perf_counter(), self.counter
        self.prepare()
        done, pending, spent = self.restore(folder)
        began -= spent
        if folder is not None:
            write_json(folder / "run.json", {"state": "running", "config": self.config})
        saved = time.perf_counter()
        group = self.method.group
        groups = -(-self.n // self.method.returned)
        count = len(self.levels) - 1
        bar = Bar(type(self.method).__name__, groups * count, self.progress)
        while done.groups < groups:
            before = (
                pending.groups
                if pending is not None
                else min(max(1, self.batch // group), groups - done.groups)
            )
            post, kept = self.of_groups(done.groups, before), dict(counter.calls)
            if pending is None:
                pending = self.begin(post, done.groups, before)
            try:
                while pending.step < count:
                    bar.at(done.groups * count + before * pending.step)
                    self.advance(post, pending, counter)
                    if folder is not None and time.perf_counter() - saved >= every:
                        checkpoint.save_checkpoint(folder, done, pending, self.progressed(began))
                        saved = time.perf_counter()
                self.close(post, done, pending, counter)
            except (MemoryError, RuntimeError) as error:
                if not _out_of_memory(error) or before == 1:
                    raise
                counter.calls.update(kept)
                self.batch = before * group // 2
                warnings.warn(
                    f"out of memory with {before * group} rows: "
                    f"going on with {self.batch} at a time, same samples",
                    stacklevel=3,
                )
            else:
                if folder is not None:
                    checkpoint.append(folder, done, before, self.progressed(began))
            pending = None
        bar.at(done.groups * count)
        bar.close()
        return self.finish(done, counter, time.perf_counter() - began)

    def progressed(self, began: float) -> CheckpointNotes:
        return {
            "calls": self.counter.calls,
            "spent": time.perf_counter() - began,
            "size": self.batch,
        }

    def streams(self, done: int, groups: int) -> Streams:
        """The random streams of so many groups after ``done`` ones."""
        if self.several is not None:
            places = self.several.places(done, groups)
            return Streams.of(places, self.method.group, self.antithetic)
        numbers = range(self.start + done, self.start + done + groups)
        return Streams(self.seed, numbers, self.method.group, self.antithetic)

    def of_groups(self, done: int, groups: int) -> Posterior:
        """The posterior that they are drawn from: the same for all, or with a measurement for
        each."""
        if self.several is None:
            return self.counted
        A = self.several.instrument(done, groups)
        own = None if A is None else CountedLinearOperator(A, self.counter)
        return self.counted.for_rows(self.several.measured(done, groups), own)

    def begin(self, post: Posterior, done: int, groups: int) -> Pending:
        """The next batch at the largest noise level, after ``done`` groups."""
        rng = self.streams(done, groups)
        with torch.no_grad():
            x = post.prior.start(rng.normal(self.blank(groups)), self.levels[0])
            return Pending(
                0,
                groups,
                rng,
                self.method.init(post, x, rng),
                [Status()] * (groups * self.method.group),
            )

    def advance(self, post: Posterior, batch: Pending, counter: Counter) -> None:
        """One step of one batch."""
        k = batch.step
        with torch.no_grad():
            batch.state, info = self.method.step(
                post, batch.state, self.levels[k], self.levels[k + 1], batch.rng
            )
            rows = self.method.rows(batch.state)
            # One number for the batch, at least its largest; only a suspicious one costs more. NaN
            # passes no comparison.
            if not torch.linalg.vector_norm(rows).item() <= self.limit:
                self.judge(rows, batch.status, k, counter, info.get("ess"))
        batch.step = k + 1
        for name, value in info.items():
            batch.trace.setdefault(name, []).append(value.detach().cpu())
        for look in self.watch:
            look(k, self.levels[k + 1], rows, info)

    def close(self, post: Posterior, done: Done, batch: Pending, counter: Counter) -> None:
        """A batch at the end of the grid becomes samples, which are judged as the rows were: a
        cloud may die by its last weights."""
        with torch.no_grad():
            rows, log_w = self.method.finish(post, batch.state, batch.rng)
            evidence = self.method.log_evidence(post, batch.state)
        ended, ess = [Status()] * len(rows), batch.trace.get("ess")
        w = log_w.view(batch.groups, -1)
        void = (w.isnan() | w.isposinf() | w.isneginf().all(1, keepdim=True)).flatten()
        lost = ess[-1][batch.first(self.method.returned)] if ess else None
        self.judge(
            torch.where(per_row(void, rows), torch.nan, rows), ended, batch.step - 1, counter, lost
        )
        done.add(batch, rows, log_w, evidence, ended)

    def judge(
        self, rows: Tensor, status: list[Status], k: int, counter: Counter, ess: Tensor | None
    ) -> None:
        """Mark the rows that left all bounds at step k, once, with the likely culprit; ``ess`` (B,)
        is 0 where a cloud has died."""
        seen = [v for v in counter.denoised or () if len(v) == len(rows)]
        for row in (~(rows.flatten(1).abs() <= self.limit).all(1)).nonzero()[:, 0].tolist():
            if status[row].ok:
                sound = [bool(v[row].abs().isfinite().all()) for v in seen] != [True, False]
                dead = ess is not None and float(ess[row]) == 0
                status[row] = Status(
                    "diverged",
                    k,
                    ADVICE["denoiser" if not sound else "cloud" if dead else "method"],
                )

    def finish(self, done: Done, counter: Counter, seconds: float) -> Run:
        status = tuple(done.status[: self.n])
        ok = torch.tensor([s.ok for s in status])
        if not bool(ok.any()):
            raise FloatingPointError(
                f"{type(self.method).__name__}: every row diverged; row 0 {status[0]}"
            )
        if not bool(ok.all()):
            k = int((~ok).nonzero()[0])
            warnings.warn(
                f"{int((~ok).sum())} of {self.n} rows are left out of the samples; "
                f"row {k} {status[k]}",
                stacklevel=4,
            )
        trace = {name: torch.cat(parts, dim=1)[:, : self.n] for name, parts in done.trace.items()}
        samples = self.post.to_given(torch.cat(done.rows)[: self.n][ok])
        log_w, counts = torch.cat(done.log_w)[: self.n][ok], counter.per_sample(self.n)
        # Clouds are independent: the mean of their estimates of p(y) is one, unbiased where each of
        # them is. A dead cloud's is 0.
        clouds = torch.cat(done.evidence) if done.evidence else None
        evidence = None if clouds is None else float(clouds.logsumexp(0)) - math.log(len(clouds))
        named = (self.method.reference, "jia2026antithetic" if self.antithetic else "")
        references = tuple(name for name in named if name)
        number = 0 if clouds is None else len(clouds)
        return Run(
            samples,
            log_w,
            evidence,
            status,
            counts,
            trace,
            seconds,
            self.config,
            references,
            clouds=number,
        )

    def restore(self, folder: Path | None) -> tuple[Done, Pending | None, float]:
        """What ``visit`` found: finished batches, the batch under way if there is one, the seconds
        spent."""
        done, progress = self.kept
        device, group = self.post.likelihood.y.device, self.method.group
        found = None if folder is None else checkpoint.pending(folder, done, self.streams, device)
        batch = None
        if found is not None:
            batch, parts, progress = found
            # A fresh state is the mould into which the saved tensors are poured; its own random
            # numbers do not matter.
            spare = Streams(0, range(batch.groups), group)
            with torch.no_grad():
                batch.state = checkpoint.pour(
                    self.method.init(self.post, self.blank(batch.groups), spare), iter(parts)
                )
        if progress is None:
            return done, batch, 0.0
        self.counter.calls, self.batch = progress["calls"], progress["size"]
        return done, batch, progress["spent"]

    def blank(self, groups: int) -> Tensor:
        y = self.post.likelihood.y
        dtype = y.real.dtype.to_complex() if self.post.prior.complex else y.real.dtype
        return torch.zeros(
            groups * self.method.group, *self.post.shape, dtype=dtype, device=y.device
        )


def draw_prior(
    prior: Prior, n: int, seed: int, steps: int, shape: tuple[int, ...] | None
) -> Tensor:
    """See ``Prior.sample``: the posterior of a measurement that says nothing."""
    known = tuple(side for side in prior.shape if side is not None)
    if shape is None and len(known) != len(prior.shape):
        raise ValueError(
            f"this prior models images of shape {prior.shape}, None being any length: "
            "say which, for example shape=(3, 64, 64)"
        )
    flat = Null(known if shape is None else shape, complex=prior.complex)
    held = {
        t.dtype.to_real()
        for t in [*prior.parameters(), *prior.buffers()]
        if t.is_floating_point() or t.is_complex()
    }
    y = torch.zeros(1, dtype=torch.float64 if held == {torch.float64} else torch.float32)
    law: NoiseLaw = ComplexGaussian(sigma_per_channel=1.0) if prior.complex else Gaussian(1.0)
    post = Posterior(
        prior,
        Likelihood(
            y.to(y.dtype.to_complex()) if prior.complex else y, flat, law, range=prior.range
        ),
    )
    return sample(post, Unconditional(Heun()), n=n, steps=steps, seed=seed).samples


def _out_of_memory(error: Exception) -> bool:
    kinds = MemoryError | torch.OutOfMemoryError
    return isinstance(error, kinds) or "can't allocate memory" in str(error)
