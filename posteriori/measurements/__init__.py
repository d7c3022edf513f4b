"""Real files in, real files out."""

from posteriori.measurements.arrays import read_array
from posteriori.measurements.depth import Depth, depth
from posteriori.measurements.dicom import write_series
from posteriori.measurements.formats import FileKind, read_measured, write_measured
from posteriori.measurements.images import ImageInfo, read_image, write_image
from posteriori.measurements.measured import Measured
from posteriori.measurements.volumes import VolumeInfo, read_volume, write_volume

__all__ = [
    "Depth",
    "FileKind",
    "ImageInfo",
    "Measured",
    "VolumeInfo",
    "depth",
    "read_array",
    "read_image",
    "read_measured",
    "read_volume",
    "write_image",
    "write_measured",
    "write_series",
    "write_volume",
]
