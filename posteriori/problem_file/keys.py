"""Every key of a problem file: what its model says of type, default and allowed values, and what it
means, with its unit.

A key of a model that has no meaning here, and a meaning of no key, fail a test.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator
from typing import Any, NamedTuple

from pydantic import BaseModel, PydanticUserError, TypeAdapter

from posteriori.methods import ALL
from posteriori.problem_file import noise, operator, prior, reading, study, unknown
from posteriori.problem_file.file import Problem
from posteriori.problem_file.operator_keys import OPERATORS
from posteriori.settings import first_paragraph, settings_of

READ = {
    "key": "which array of a file that holds several, such as .safetensors, .pt, .npz, .mat, .h5",
    "slice": "which slice, page or time of a file that holds several, from 0",
    "white": (
        "the stored number that is white, black being 0 (4095 for 12 bits in 16); "
        "by default the largest that the file can hold"
    ),
    "channels": "how many a picture has; by default those of the file",
    "nodata": (
        "the stored number that means no data; none where the file's own such number means itself"
    ),
    "scale": (
        "the value of one stored unit, y = scale x stored, for whole numbers that are no picture"
    ),
}
MEANING: dict[str, dict[str, str]] = {
    "": {
        "prior": "what is believed of images: a name or one of the kinds below",
        "operator": "the instrument: a name, or a mapping with a name and settings",
        "unknown": "a number of the operator that nobody knows, sampled together with the image; "
        "none by default",
        "noise": "the law and level of the noise",
        "measurement": "the file that was measured, or a clean image to simulate one from",
        "reference": "the true image, for comparison only; none by default",
        "image_shape": (
            "channels, height, width of the image, of volumes the number of slices first; "
            "by default as large as the measurement, with the channels of the prior"
        ),
        "method": (
            "a name, or a mapping with a name and settings; "
            "without one it is chosen by the kind of problem"
        ),
        "methods": (
            "a list of such names and mappings, each also with its own steps and grid: "
            "those that compare takes"
        ),
        "n": "samples to draw",
        "steps": (
            "noise levels that a run visits; "
            "by default 32, and those of its paper for the preset published"
        ),
        "seed": "of the samples: sample k depends on it and on k alone",
        "antithetic": (
            "samples in pairs of the same noise with opposite signs, whose mean is nearer to that "
            "of many samples; n is then even. Of solve and calibrate: tables of several methods, "
            "whose scores ask for independent samples, draw these"
        ),
        "grid": (
            "where the noise levels lie; "
            "by default the method's own choice, karras where it has none"
        ),
        "batch": (
            "samples worked on together, which changes memory and speed and no sample; "
            "by default about a million numbers"
        ),
        "precision": (
            "of a network's inner arithmetic; by default (auto) that of photos is bfloat16 where "
            "the device multiplies it, all else float32; a run that is resumed keeps its own"
        ),
        "write": (
            "the kind of file in which volumes are written, and images beside their pictures; "
            "a series is a folder. By default that of the measurement, of images where it is no "
            "picture"
        ),
        "device": "where images are worked on, such as cpu or cuda:0",
    },
    "prior": {
        "shipped": (
            "a prior of the package, written as a name alone: "
            "colour photographs of any size and grey digits of 32 x 32, both also for the noise "
            "that EPS asks for (of a mask; of photographs, round circular blurs and means of 2, 4 "
            "and 8 pixels too), "
            "chest CT of 128 x 128 in Hounsfield units from -1000 to 1500, "
            "magnitudes of brain MRI of any size, "
            "or grey digits of 32 x 32 told in words"
        ),
        "path": "a folder written by `save_pretrained`, `posteriori train --export` or `posteriori "
        "import`; or a diffusers folder or a file of weights that `priors.load` recognises",
        "diffusers": "a folder of the diffusers library",
        "grey": "grey images by a prior of colour images, which is one of these kinds",
        "slices": "volumes and videos whose slices are independent images of one of these kinds",
        "conditioned": "a prior that is told in words what its images show: a mapping with the "
        "keys of `prior conditioned`",
        "tiles": "images larger than those of a prior, by overlapping tiles: a mapping with the "
        "keys below",
        "ambient": "a network that learned from masked images, seen through a mask: a mapping with "
        "the keys below",
        "gaussian": "independent pixels, known in closed form: a mapping with the keys below",
    },
    "prior.tiles": {
        "prior": "of one tile: one of these kinds",
        "size": "side of a tile, in pixels",
        "overlap": "pixels that neighbours share, at least; by default a quarter of size",
    },
    "prior.conditioned": {
        "prior": "one of these kinds, with a text encoder, such as `text-digits`",
        "text": "what the image shows, in words",
        "guidance": "how much the text counts: D = D_0 + guidance (D_text - D_0), at two network "
        "passes a call where it is neither 0 nor 1",
        "negative": "what D_0 is told; the empty text tells it nothing",
    },
    "prior.ambient": {
        "path": "its folder, of `posteriori train --export` with objective: ambient",
        "mask": "a picture or array of two values, bright where the network looks, like the masks "
        "of its data",
    },
    "prior.gaussian": {
        "mean": "of each pixel, in range",
        "std": "standard deviation of each pixel, in range",
        "shape": "of an image, such as [1, 32, 32]",
        "range": "in which mean and std are meant",
    },
    "unknown": {
        "std": "the width of the Gaussian kernel of a blur, in pixels: a mapping with median and "
        "factor; the operator states its size",
        "kernel": "all numbers of the kernel of a blur: a mapping with widths and spread",
        "offset_mm": "of the operator radon, how far the axis of rotation lies beside the middle "
        "of the detectors, in mm: a mapping with mean and std",
        "exponent": "of the operator gamma: a mapping with median and factor",
    },
    "unknown log-normal": {
        "median": "the middle of what is believed; by default the operator's own number",
        "factor": "within which of the median the number lies in two cases of three",
    },
    "unknown normal": {
        "mean": "the middle of what is believed",
        "std": "standard deviation of what is believed",
    },
    "unknown kernel": {
        "widths": "smallest and largest width of the Gaussian that the kernel is near, in pixels",
        "spread": "standard deviation of one tap around that Gaussian, in the unit of a tap, whose "
        "sum is 1",
    },
    "measurement": READ
    | {
        "file": "what was measured: .png, .jpg, .tif, .npy, .npz, .mat, .pt, .safetensors, .cfl, "
        ".h5 (also of fastMRI and ISMRMRD), .fits, .uvfits, .mrc, .zarr, .dcm, .nii, .nii.gz, "
        "or a folder of a DICOM series; this or image",
        "image": "a clean image, to be degraded first; this or file",
        "seed": "of the noise that is added to image",
    },
    "reference": READ | {"file": "the true image; a file alone may be written without this key"},
    "noise gaussian": {
        "sigma": (
            "standard deviation, in the unit of y when the image is in range; "
            "estimate takes it from y"
        ),
        "trust": "measured numbers that sigma counts as, where it is not known; else it is exact",
        "range": "black and white of the image",
    },
    "noise complex-gaussian": {
        "sigma_per_channel": (
            "standard deviation of the real part, and of the imaginary part; this or sigma_complex"
        ),
        "sigma_complex": "sqrt(2) times sigma_per_channel",
        "range": (
            "black and white of the image; "
            "may be left out for the operator mri, which takes it from y"
        ),
    },
    "noise poisson": {
        "peak": (
            "photons where the clean measurement is 1; "
            "left out where the operator transmission states them"
        ),
        "range": "black and white of the image",
    },
    "noise correlated-gaussian": {
        "levels": "a .npy file of the standard deviation of each measured number; this, power or "
        "covariance",
        "power": "a .npy file of the variance of each number of "
        "numpy.fft.fft2(noise, norm='ortho')",
        "covariance": "a .npy file of the matrix",
        "range": "black and white of the image",
    },
    "noise poisson-gaussian": {
        "peak": "photons where the clean measurement is 1",
        "sigma": "standard deviation of the read noise, in the units of y",
        "range": "black and white of the image",
    },
    "noise huber": {
        "scale": "standard deviation of the small errors, in the units of y",
        "corner": "the error, in scale, from which on the tails are those of Laplace",
        "range": "black and white of the image",
    },
    "noise outliers": {
        "sigma": "standard deviation of the numbers that are not lost, in the units of y",
        "share": "of numbers that are lost, between 0 and 1",
        "low": "the least value of a lost number, in the units of y",
        "high": "the largest value of a lost number",
        "range": "black and white of the image",
    },
    "noise rician": {
        "sigma": "standard deviation of each part of the complex number, in the units of y",
        "range": "black and white of the image",
    },
    "noise speckle": {
        "looks": "exponential intensities that were averaged; 1 for fully developed speckle",
        "range": "black and white of the image",
    },
    "noise quantised": {
        "sigma": "standard deviation of the noise before rounding, in the units of y",
        "step": "distance of two values of y, such as 0.00392157 for 8 bits of [0, 1]",
        "low": "the least value of y, which holds all that lies below; none by default",
        "high": "the largest value of y, which holds all that lies above; none by default",
        "range": "black and white of the image",
    },
    "noise laplace": {
        "scale": "mean absolute error, in the units of y",
        "range": "black and white of the image",
    },
    "noise student-t": {
        "scale": "standard deviation of the small errors, in the units of y",
        "freedom": "degrees of freedom, at least 3; the fewer, the heavier the tails",
        "range": "black and white of the image",
    },
    **OPERATORS,
    "study": {
        "problem": (
            "a problem file whose prior, operator, noise, unknown, image_shape, seed, grid, batch, "
            "precision and device are taken; by default these stand in the study file itself"
        ),
        "measurements": (
            "what the methods are run on; a pattern of paths, or a list of them, is one of files"
        ),
        "methods": "a list of names and mappings, as for compare; differences are to the first",
        "n": "samples to draw for each measurement",
        "steps": "noise levels that a run visits; by default as in a problem file",
        "calls": (
            "the most passes through the network a sample, denoiser calls and vector-Jacobian "
            "products: each method takes the most steps that keep to it, counted before on one "
            "sample of the first measurement; in the place of steps"
        ),
        "lpips": "whether the table has LPIPS (extra `lpips`)",
        "slurm": "what a job asks for, where the study is run with --slurm",
    },
    "study measurements": READ
    | {
        "files": "patterns of the files that were measured, such as scans/*.npy",
        "images": "patterns of clean images, to simulate measurements from",
        "references": "patterns of the true images; each has the stem of its measurement",
        "seed": "of the simulated noise: that of measurement k, from 0, is of seed + k",
        "repeats": "measurements simulated of each clean image, one after the other",
    },
    "study slurm": {
        "partition": "where jobs are submitted to; by default the usual one of the machine",
        "cores": "of a job; each draws cells of its own, on one thread",
        "memory": "of a job, such as 4GB",
        "walltime": "of a job, in hours, minutes and seconds: HH:MM:SS",
        "jobs": "how many are submitted",
    },
}
# The name of a section is its heading; the other is made of an import path
HIDDEN = {"name", "law", "maker"}


class Key(NamedTuple):
    """One key. default: as YAML, "required", or "-" where it may be left out."""

    name: str
    allowed: str
    default: str
    meaning: str


class KeySection(NamedTuple):
    """The keys of one mapping. name: its path in the file, and its ``name`` or ``law`` where it has
    one."""

    name: str
    about: str
    keys: tuple[Key, ...]


def parts() -> Iterator[KeySection]:
    """Every mapping of a problem file."""
    yield _part("", Problem)
    yield _part("prior", prior.PriorSection)
    yield _part("prior.tiles", prior.Larger)
    yield _part("prior.conditioned", prior.Condition)
    yield _part("prior.ambient", prior.Through)
    yield _part("prior.gaussian", prior.White)
    yield _part("unknown", unknown.UnknownSection)
    yield _part("unknown log-normal", unknown.LogNormal)
    yield _part("unknown normal", unknown.Normal)
    yield _part("unknown kernel", unknown.KernelFamily)
    yield _part("measurement", reading.Measurement)
    yield _part("reference", reading.Reference)
    for place, section, tag in (
        ("noise", noise.NoiseSection, "law"),
        ("operator", operator.OperatorSection, "name"),
    ):
        for model in typing.get_args(typing.get_args(section)[0]):
            (name,) = typing.get_args(model.model_fields[tag].annotation)
            yield _part(f"{place} {name}", model)
    yield _part("study", study.StudyFile)
    yield _part("study measurements", study.Measurements)
    yield _part("study slurm", study.Slurm)


def method_sections() -> Iterator[KeySection]:
    """The settings of every method; what they mean is said in the docstring of its class."""
    for name, cls in ALL.items():
        known = settings_of(cls)
        keys = []
        for field in dataclasses.fields(cls):
            adapter = known[field.name].adapter if field.name in known else None
            allowed = _worded(adapter.json_schema()) if adapter else "name or mapping"
            keys.append(Key(field.name, allowed, _default(field.default), ""))
        yield KeySection(
            f"method {name}",
            first_paragraph(cls).replace("``", "`"),
            tuple(keys),
        )


def _part(name: str, model: type[BaseModel]) -> KeySection:
    meanings = MEANING.get(name, {})
    keys = [
        Key(
            "name" if key == "shipped" else key,
            _allowed(field),
            "required" if field.is_required() else _default(field.default),
            meanings.get(key, ""),
        )
        for key, field in model.model_fields.items()
        if key not in HIDDEN
    ]
    about = " ".join((model.__doc__ or "").split()).partition(". ")[0].rstrip(".")
    return KeySection(name, f"{about}.".replace("``", "`"), tuple(keys))


def _allowed(field: Any) -> str:
    try:
        return _worded(TypeAdapter(field.rebuild_annotation()).json_schema())
    except PydanticUserError:  # of sections that may hold an object of the user's own
        return "name or mapping"


def _worded(schema: dict[str, Any]) -> str:
    """A JSON schema in words: "number > 0", "`zero` or `valid`", "[number, number]"."""
    if "anyOf" in schema:
        kinds = (_worded(part) for part in schema["anyOf"] if part.get("type") != "null")
        return " or ".join(dict.fromkeys(kinds))
    if "enum" in schema or "const" in schema:
        return " or ".join(f"`{word}`" for word in schema.get("enum", [schema.get("const")]))
    if "prefixItems" in schema:
        return f"[{', '.join(map(_worded, schema['prefixItems']))}]"
    kind = schema.get("type")
    if kind == "array" and "$ref" not in schema.get("items", {"$ref": ""}):
        return f"list of {_worded(schema['items']).replace('number', 'numbers')}"
    if kind == "string":
        return "path" if schema.get("format") == "path" else "text"
    if kind in ("number", "integer"):
        signs = {
            "gt": ">",
            "exclusiveMinimum": ">",
            "ge": ">=",
            "minimum": ">=",
            "lt": "<",
            "exclusiveMaximum": "<",
            "le": "<=",
            "maximum": "<=",
        }
        bounds = [f"{sign} {schema[key]:g}" for key, sign in signs.items() if key in schema]
        return (
            f"{'whole number' if kind == 'integer' else 'number'} {' and '.join(bounds)}".rstrip()
        )
    return {
        "boolean": "`true` or `false`",
        "array": "list of names or mappings",
        None: "name or mapping",
    }.get(kind, "mapping")


def _default(value: Any) -> str:
    if value is dataclasses.MISSING:
        return "required"
    if value is None:
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(map(_default, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)
