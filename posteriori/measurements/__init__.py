"""Real files in, real files out."""

from posteriori.measurements.arrays import read_array
from posteriori.measurements.depth import Depth, depth
from posteriori.measurements.images import ImageInfo, read_image, write_image
from posteriori.measurements.volumes import VolumeInfo, read_volume, write_volume

__all__ = [
    "Depth",
    "ImageInfo",
    "VolumeInfo",
    "depth",
    "read_array",
    "read_image",
    "read_volume",
    "write_image",
    "write_volume",
]
