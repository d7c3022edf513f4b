"""One measurement per row: many measurements by one instrument, solved in common batches."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from posteriori import grid as grids
from posteriori import identity
from posteriori.asked import check_counts, check_pairs
from posteriori.configuration import batch_rows, describe
from posteriori.counting import Counter
from posteriori.diagnostics import tell
from posteriori.driver import Job, sample
from posteriori.likelihood import Likelihood, Posterior
from posteriori.methods.base import Method
from posteriori.methods.courses import steps_of
from posteriori.operators.base import LinearOperator, Operator
from posteriori.operators.row_wise import RowWise
from posteriori.priors.base import Prior
from posteriori.run import Run, Status
from posteriori.run_folder import keep
from posteriori.several import Several


def sample_each(
    prior: Prior,
    likelihoods: Sequence[Likelihood],
    method: Method[Any],
    *,
    n: int = 1,
    steps: int | None = None,
    seed: int = 0,
    antithetic: bool = False,
    grid: grids.GridName | torch.Tensor | None = None,
    batch: int | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    progress: bool = False,
    folder: str | Path | None = None,
    resume: bool = False,
) -> list[Run]:
    """``n`` samples of p(x | y) for each of several measurements y: the run of each, in their
    order.

    Run j is that of ``sample`` with the posterior of ``likelihoods[j]`` and the seed ``seed + j``,
    up to the rounding of batched arithmetic; it costs less time where images are small, since rows
    of different measurements share a batch. They do where the likelihoods hold one operator or
    alike ones, an equal Gaussian law, range and frame, and the method is one of this library whose
    rows stand alone. Operators are alike that are linear, of one shape, and know a spectrum with
    the same singular values: masks with equally many places, undersampled Fourier transforms with
    equally many frequencies. Others are drawn one after the other: methods with clouds, of your
    own, or with a setting that needs a prior in closed form or meets the data on images.

    folder: each run is kept in a folder of its own in there, 00000 for the first, or with those it
    shares batches with. Other arguments are those of ``sample``. A measurement of which every row
    diverged gives a run without samples and a warning, and costs the others nothing. Raises
    ``ValueError`` as ``sample`` does, before the first call of the denoiser.
    """
    if not likelihoods:
        raise ValueError("there is no likelihood to sample from")
    how: dict[str, Any] = {
        "steps": steps_of(method, steps),
        "antithetic": antithetic,
        "grid": grid,
        "progress": progress,
        "resume": resume,
    }
    check_counts(n)
    check_pairs(antithetic, n, method=method)
    first = Posterior(prior, likelihoods[0]).at_work(device, dtype)
    posts = [
        first,
        *(Posterior(first.prior, like).at_work(device, dtype) for like in likelihoods[1:]),
    ]
    refusals = [
        f"measurement {j}: {why}" for j, post in enumerate(posts) if (why := method.refuses(post))
    ]
    if refusals:
        raise ValueError(refusals[0])
    runs: dict[int, Run] = {}
    instruments = [id(like.A) for like in likelihoods]
    for which in _workable(_shared(posts, instruments, method), posts, instruments, method):
        some = [posts[j] for j in which]
        place = None if folder is None else Path(folder) / f"{which[0]:05d}"
        seeds = tuple(seed + j for j in which)
        own = len({instruments[j] for j in which}) > 1
        if len(which) == 1:
            runs[which[0]] = _single(
                some[0], method, n=n, seed=seeds[0], batch=batch, folder=place, **how
            )
        else:
            runs |= zip(
                which, _batched(some, method, n, seeds, batch, place, own, **how), strict=True
            )
    return [runs[j] for j in range(len(posts))]


def _single(
    post: Posterior,
    method: Method[Any],
    *,
    n: int,
    seed: int,
    steps: int,
    antithetic: bool,
    **how: Any,
) -> Run:
    try:
        return sample(post, method, n=n, seed=seed, steps=steps, antithetic=antithetic, **how)
    except FloatingPointError as error:
        warnings.warn(
            f"every row of the measurement with seed {seed} diverged: {error}", stacklevel=3
        )
        config = describe(post, method, n=n, first=0, seed=seed, steps=steps, antithetic=antithetic)
        x = torch.empty(0, *post.given.A.in_shape, dtype=post.likelihood.y.dtype)
        status = (Status("diverged", None, str(error)),) * n
        return Run(x, torch.empty(0, dtype=torch.float64), None, status, {}, {}, 0.0, config, ())


def _alike(A: Operator, instrument: int) -> Any:
    """What is equal for two operators whose rows may share a batch: a method then meets the same
    numbers as with each of them alone."""
    spectrum = A.spectrum() if isinstance(A, LinearOperator) else None
    if not isinstance(A, LinearOperator) or spectrum is None:
        return instrument
    powers = [A.cosine_power(), A.fourier_power(), A.measured_power()]
    known = [None if power is None else identity.digest(power) for power in powers]
    return A.in_shape, A.out_shape, A.complex_in, A.complex_out, identity.digest(spectrum.s), *known


def _shared(
    posts: Sequence[Posterior], instruments: Sequence[int], method: Method[Any]
) -> list[list[int]]:
    """Which measurements are worked on together, by their places."""
    alone = (
        method.group > 1
        or not type(method).__module__.startswith("posteriori.")
        or bool(method.requires & {"closed form", "images"})
    )
    found: dict[Any, list[int]] = {}
    kinds: dict[int, Any] = {}
    for j, (post, instrument) in enumerate(zip(posts, instruments, strict=True)):
        given = post.given
        alike = not alone and given.noise.std is not None and given.r2 == 0
        if alike and instrument not in kinds:
            kinds[instrument] = _alike(post.likelihood.A, instrument)
        law = (type(given.noise), given.noise.std)
        key = (kinds[instrument], *law, given.range, given.frame, given.y.dtype) if alike else j
        found.setdefault(key, []).append(j)
    return list(found.values())


def _workable(
    groups: list[list[int]],
    posts: Sequence[Posterior],
    instruments: Sequence[int],
    method: Method[Any],
) -> list[list[int]]:
    """The groups; one by one those that have operators of their own, which the method takes each
    alone and not in one batch."""
    found: list[list[int]] = []
    for which in groups:
        refused = False
        if len({instruments[j] for j in which}) > 1:
            together = RowWise([posts[j].likelihood.linear for j in which])
            y = torch.stack([posts[j].likelihood.y for j in which])
            refused = method.refuses(posts[which[0]].for_rows(y, together)) is not None
        found += [[j] for j in which] if refused else [which]
    return found


def _batched(
    posts: Sequence[Posterior],
    method: Method[Any],
    n: int,
    seeds: tuple[int, ...],
    batch: int | None,
    folder: Path | None,
    own: bool,
    *,
    steps: int,
    antithetic: bool,
    grid: grids.GridName | torch.Tensor | None,
    progress: bool,
    resume: bool,
) -> list[Run]:
    post, total = posts[0], n * len(posts)
    ys = [identity.content(p.given.y) for p in posts]
    config = describe(post, method, n=n, first=0, seed=seeds[0], steps=steps, antithetic=antithetic)
    records = (
        [p.given.A.record() for p in posts]
        if own
        else [config["identity"]["operator"]] * len(posts)
    )
    instruments = {"operator": records} if own else {}
    whole = config | {
        "n": total,
        "seed": list(seeds),
        "identity": config["identity"] | {"y": ys} | instruments,
    }
    several = Several(
        torch.stack([p.likelihood.y for p in posts]),
        seeds,
        n,
        tuple(p.likelihood.linear for p in posts) if own else None,
    )
    rows = batch or batch_rows(post, method, total)
    job = Job(
        post,
        method,
        steps,
        grid,
        seeds[0],
        total,
        0,
        rows,
        (),
        progress,
        whole,
        Counter(),
        several,
        antithetic,
    )
    run = job.run(None, 0.0) if folder is None else keep(job, folder, resume, 20.0)
    reached = {key: run.config[key] for key in ("levels", "grid", "pilot")}
    identities = [
        config["identity"] | {"y": y, "operator": record}
        for y, record in zip(ys, records, strict=True)
    ]
    named = [{"operator": type(p.given.A).__name__} for p in posts]
    configs = [
        config | reached | {"seed": s, "identity": i} | name
        for s, i, name in zip(seeds, identities, named, strict=True)
    ]
    return [_told(part, p) for part, p in zip(_split(run, configs, n), posts, strict=True)]


def _split(run: Run, configs: Sequence[dict[str, Any]], n: int) -> list[Run]:
    """The run of each measurement, of ``n`` rows each."""
    kept = torch.tensor([status.ok for status in run.status]).view(-1, n)
    ends = kept.sum(1).cumsum(0).tolist()
    runs = []
    for j, (start, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
        here = slice(j * n, (j + 1) * n)
        trace = {name: value[:, here] for name, value in run.trace.items()}
        runs.append(
            replace(
                run,
                samples=run.samples[start:end],
                log_w=run.log_w[start:end],
                status=run.status[here],
                trace=trace,
                seconds=run.seconds / len(configs),
                config=configs[j],
                extras={},  # what a folder keeps to be looked at is that of the first measurement
            )
        )
    return runs


def _told(run: Run, post: Posterior) -> Run:
    if len(run.samples):
        return tell(run, post)
    warnings.warn(
        f"every row of the measurement with seed {run.config['seed']} diverged; "
        f"row 0 {run.status[0]}",
        stacklevel=4,
    )
    return run
