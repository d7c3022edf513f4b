"""What the keys of every ``operator`` of a problem file mean, with their units."""

from __future__ import annotations

RAYS = {
    "angles": "how many, evenly over 180 degrees, or each of them in degrees",
    "pixel_mm": "side of a pixel of the image, in mm",
    "detectors": (
        "how many in a row; by default as many as the measured sinogram has, "
        "else enough for the diagonal of the image"
    ),
    "detector_mm": "distance between detectors, in mm; by default pixel_mm",
    "unit": "of the image and of noise.range: attenuation in 1/mm, or Hounsfield units",
    "mu_water": "attenuation of water in 1/mm at the energy of the rays; needed for HU",
}
PATTERN = (
    "share of the way from dark to bright above which a pixel of the file was observed; "
    "for files of more than two values"
)

OPERATORS: dict[str, dict[str, str]] = {
    "operator blur": {
        "std": "standard deviation of a Gaussian kernel, in pixels; this or kernel",
        "size": "side of the Gaussian kernel, in pixels; by default large enough for std",
        "kernel": "a picture or array of (rows, columns) with sum 1; this or std",
        "normalize": "divide the kernel of a file by its sum",
        "boundary": (
            "what lies beyond the border of the image: valid assumes nothing. "
            "Left out: valid for a measured file (reflect where the image is no larger than it), "
            "circular for a simulated one"
        ),
    },
    "operator varying-blur": {
        "kernels": "an array (rows, columns, kernel rows, kernel columns), each kernel of sum 1",
        "normalize": "divide each kernel by its sum",
        "at_rows": "where the rows of kernels hold, in pixels; by default evenly over the picture",
        "at_columns": "where their columns hold, in pixels; by default evenly over the picture",
        "boundary": "what lies beyond the border of the image, as for blur",
    },
    "operator mask": {
        "box": "side of the square that is hidden, in pixels; this, keep or file",
        "where": "the first hidden pixel [row, column] of the box",
        "keep": "share of the pixels that is observed, drawn with seed; this, box or file",
        "seed": "of the pixels that keep draws; needed with it",
        "file": "a picture or array, bright where observed; this, box or keep",
        "threshold": PATTERN,
    },
    "operator downsample": {
        "factor": "how many times smaller each side is",
        "kind": "by which filter; they differ by more than 10 dB",
    },
    "operator mosaic": {
        "pattern": "letters of the filters from the first pixel on: RGGB, or rows apart by /",
        "colours": "the letter of each channel of the image, in order",
    },
    "operator single-pixel": {
        "count": "how many patterns are shown, the first of the order",
        "order": "by changes of sign, coarse patterns first; that of Sylvester's matrix; or drawn",
        "seed": "of the random order; needed with it",
    },
    "operator radon": RAYS,
    "operator fan-beam": RAYS
    | {
        "angles": "how many, evenly over 360 degrees, or each of them in degrees",
        "detectors": (
            "how many in a row; by default as many as the measured sinogram has, "
            "else enough for the circle around the image"
        ),
        "detector_mm": (
            "distance between detectors on the detector, in mm; by default that which is a pixel "
            "in the middle of the image"
        ),
        "source_mm": "distance from the source to the axis of rotation, in mm",
        "detector_at_mm": "distance from the axis of rotation to the detector, in mm",
    },
    "operator cone-beam": RAYS
    | {
        "angles": "how many, evenly over 360 degrees, or each of them in degrees",
        "detectors": (
            "how many in a row; by default as many as the measured projections have, "
            "else enough for the cylinder around the volume"
        ),
        "rows": "how many rows of detectors; with detectors",
        "detector_mm": (
            "distance between detectors on the detector, in mm; by default that which is a pixel "
            "in the middle of the image"
        ),
        "source_mm": "distance from the source to the axis of rotation, in mm",
        "detector_at_mm": "distance from the axis of rotation to the detector, in mm",
        "slice_mm": "distance of slices, in mm; by default pixel_mm",
    },
    "operator transmission": RAYS
    | {
        "photons": (
            "that each detector counts where nothing is in the way: "
            "a number, or a file of (detectors,) or (angles, detectors)"
        ),
        "linear": (
            "take the counts for line integrals with Gaussian noise of variance 1 / y, "
            "for methods of linear operators"
        ),
    },
    "operator phase-retrieval": {
        "oversampling": "side of the Fourier grid over the side of the image"
    },
    "operator ptychography": {
        "file": "of several arrays (.npz, .mat, .h5): probe, complex (h, w), and positions, (K, 2) "
        "whole pixels, row and column of the first pixel that the probe covers",
        "intensity": "whether intensities are measured, else their roots",
    },
    "operator clip": {
        "gain": "by which the image is multiplied first",
        "low": "smallest value that is measured, in the unit of y",
        "high": "largest value that is measured, in the unit of y",
    },
    "operator gamma": {"exponent": "of the tone curve, such as 2.2 or 0.45"},
    "operator quantize": {
        "bits": "of a count, at most 16",
        "gain": "counts per unit of the image; by default 1 is the largest count",
        "black": "the count of 0",
    },
    "operator jpeg": {"quality": "of the JPEG file, in percent", "subsampling": "of its colours"},
    "operator masked-fourier": {
        "file": "the sampling pattern, bright where sampled",
        "threshold": PATTERN,
        "centred": "whether the zero frequency lies in the middle of the array",
    },
    "operator mri": {
        "maps": (
            "coil maps from the middle of the k-space, plain or those of ESPIRiT (extra `mri`); "
            "or a file of complex (coils, rows, columns)"
        ),
        "mask": "a file, bright where sampled; by default the points that are not 0",
        "threshold": PATTERN,
        "calibration": (
            "side of the fully sampled middle, in points; "
            "by default what the mask allows, at most 24"
        ),
        "phase": (
            "of the image, for a prior of one channel: that of the low-resolution image, or none"
        ),
        "coil_axis": "where an array has its coils",
        "centred": "whether the zero frequency lies in the middle of the array",
    },
    "operator non-cartesian": {
        "trajectory": "a file of real (samples, 2), along rows and along columns",
        "maps": "a file of complex (coils, rows, columns); by default one coil that is 1",
        "unit": "of the trajectory",
        "engine": "finufft (extra `mri`), or the sum as it stands, exact and slow",
    },
    "operator aperture-synthesis": {
        "size": "of the square image, in pixels",
        "field_uas": "side of the image, in micro-arcseconds",
        "pixel": "the shape of a pixel, by which fine detail is dampened",
        "closures": (
            "whether closure phases and logarithmic closure amplitudes are measured, in which "
            "unknown phases and gains of single stations cancel"
        ),
        "least_ratio": "of a visibility to its noise, for closures",
        "flux": "[value, standard deviation] of the total flux in Jy, for closures",
    },
    "operator thick-slices": {
        "factor": "how many slices each measured slice is the mean of",
    },
    "operator temporal-blur": {
        "frames": "how many frames each measured frame is the mean of; this or kernel",
        "kernel": "their weights; this or frames",
        "boundary": "what is before the first and after the last frame: the video again, "
        "that frame, or nothing is assumed and fewer frames are measured",
    },
    "operator kept-frames": {
        "frames": "the numbers of the frames that were measured, from 0",
        "of": "how many frames the video has",
    },
    "operator compose": {"parts": "two operators or more, in the order in which light meets them"},
}
