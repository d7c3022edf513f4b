"""The commands of ``posteriori bench``: what they are called with. A word that a list does not know
is refused by what runs it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from posteriori.cli.lists import LIST_OPTION, Methods, Unparted, WholeNumbers

bench_app = App(
    name="bench", help="Measure methods: where the posterior is known, and on photographs."
)
Beds = Annotated[
    tuple[Literal["gmm25", "gaussian", "bipsda", "ksd", "mixture256", "kernels"] | str, ...],
    LIST_OPTION,
]
Schedules = Annotated[tuple[Literal["original", "extended"] | str, ...], LIST_OPTION]
Photographs = Annotated[tuple[Literal["astronaut", "chelsea"] | str, ...], LIST_OPTION]
Problems = Annotated[tuple[Literal["blur", "downsample", "box", "random"] | str, ...], LIST_OPTION]


@bench_app.command(name="exact")
def exact_command(
    *,
    bed: Beds = (),
    methods: Methods = (),
    cells: Unparted = (),
    steps: WholeNumbers = (),
    schedule: Schedules = (),
    seeds: int | None = None,
    without: Methods = (),
    sample_seed: int | None = None,
    json_: Annotated[Path | None, Parameter(name="--json")] = None,
    quick: bool = False,
    quiet: bool = False,
) -> None:
    """Score methods on problems whose posterior is known, beside floor and oracle.

    Lists are written DPS,MMPS or DPS MMPS; numbers also as a range, 10-12.

    Parameters
    ----------
    bed:
        gmm25 (sliced Wasserstein), gaussian (KL by the affine probe), bipsda, ksd, mixture256,
        kernels (probabilities of an unknown blur); all by default.
    methods:
        names as in ``posteriori methods``, and floor, oracle, prior; of your own mypackage:MyMethod
        or my_file.py:MyMethod. All but your own by default.
    cells:
        d,d_y for gmm25 (such as 8,1); white, diagonal, general for gaussian; inpainting-low,
        inpainting-high, ct, phase for bipsda; the noise level 0.2, 0.5 for ksd, 0.03, 0.3, 1 for
        kernels; all by default.
    steps:
        numbers of noise levels; by default those in which a bed is reported (20 and 100; 200 for
        bipsda).
    schedule:
        original, extended (ten times further); both by default.
    seeds:
        problems per cell; 20 for gmm25 and 5 for the others by default.
    without:
        methods to leave out; none by default.
    sample_seed:
        seed of all samples; by default each problem has its own. 0 repeats rows that state none.
    json_:
        write one row per run there, and the tables beside it as Markdown and as a page; rows that
        it holds already are kept. By default tables are printed only.
    quick:
        gmm25 with three seeds, d = 8, 20 steps, original schedule and the Gaussian beds, all
        methods but
        ScorePriorVI, where not said otherwise.
    quiet:
        no progress bar.
    """
    from posteriori.cli import bench as runner

    if quick:
        bed = bed or ("gmm25", "gaussian")
        small = {"gmm25": ("8,1", "8,2", "8,4"), "gaussian": ("white", "diagonal", "general")}
        cells = cells or tuple(cell for name in bed for cell in small.get(name, ()))
        steps, seeds = steps or (20,), 3 if seeds is None else seeds
        schedule = schedule or (("original",) if "gmm25" in bed else ())
        # Half a minute a row: not quick, unless it is asked for.
        without = without if methods else (*without, "ScorePriorVI")
    runner.bench_exact(
        runner.BoardSelection(bed, methods, cells, steps, schedule, seeds, without, sample_seed),
        json_,
        not quiet and sys.stderr.isatty(),
    )


@bench_app.command(name="images")
def images_command(
    *,
    images: Photographs = (),
    problems: Problems = (),
    methods: Methods = (),
    steps: int | None = None,
    side: int | None = None,
    limit: float | None = None,
    out: Path = Path("images.png"),
    json_: Annotated[Path | None, Parameter(name="--json")] = None,
    quick: bool = False,
    quiet: bool = False,
) -> None:
    """Run methods with their default settings on photographs, with the shipped prior: tables and a
    contact sheet.

    Lists are written DPS,MMPS or DPS MMPS.

    Parameters
    ----------
    images:
        astronaut, chelsea; both by default.
    problems:
        blur, downsample, box, random (inpainting); all by default.
    methods:
        names as in ``posteriori methods``; of your own mypackage:MyMethod or my_file.py:MyMethod.
        All but your own by default. The Wiener estimate is always beside them.
    steps:
        noise levels that a run visits; 100 by default.
    side:
        of the crops, in pixels, a multiple of 8 from 32 to 256; 128 by default.
    limit:
        seconds of the processor after which a run is given up and its row says so; none by default.
    out:
        the contact sheet to write, a PNG file.
    json_:
        write one row per image, problem and method there, the pictures and the tables beside it;
        rows that it holds already are not measured again. By default tables are printed only.
    quick:
        where not said otherwise the astronaut, 64 pixels, 10 steps, at most 5 seconds of the
        processor a row.
    quiet:
        no progress bar.
    """
    from posteriori.cli import bench_images as runner

    if quick:
        images, limit = images or ("astronaut",), 5.0 if limit is None else limit
    sizes = (64, 10) if quick else (128, 100)
    chosen = runner.PhotographSelection(
        images,
        problems,
        methods,
        sizes[0] if side is None else side,
        sizes[1] if steps is None else steps,
        limit,
    )
    runner.bench_photographs(chosen, json_, out, not quiet and sys.stderr.isatty())


@bench_app.command(name="blind")
def blind_command(
    *,
    images: Path | None = None,
    methods: Methods = (),
    crops: int | None = None,
    steps: int = 40,
    side: int = 128,
    json_: Annotated[Path | None, Parameter(name="--json")] = None,
    quick: bool = False,
    quiet: bool = False,
) -> None:
    """Photographs behind a motion blur that is not known: kernels that were found, and PSNR.

    Lists are written BlindDPS,FastDiffusionEM or BlindDPS FastDiffusionEM.

    Parameters
    ----------
    images:
        a folder of pictures, of each the crop in its middle; by default the photograph that ships,
        with the crops beside it.
    methods:
        names of the family blind in ``posteriori methods``; FastDiffusionEM by default.
    crops:
        how many; 20 of a folder and 8 of the photograph that ships by default.
    steps:
        noise levels that a run visits; 40 by default.
    side:
        of the crops, in pixels, a multiple of 8 from 32 to 256; 128 by default.
    json_:
        write one row per crop and method there, and the table beside it; rows that it holds already
        are not measured again. By default the table is printed only.
    quick:
        where not said otherwise four crops.
    quiet:
        no progress bar.
    """
    from posteriori.cli import bench_blind as runner

    usual = 4 if quick else 20 if images else 8
    chosen = runner.BlindSelection(images, methods, usual if crops is None else crops, side, steps)
    runner.bench_blind(chosen, json_, not quiet and sys.stderr.isatty())
