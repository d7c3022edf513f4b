"""Real files in, real files out."""

from posteriori.measurements.arrays import read_array
from posteriori.measurements.depth import Depth, depth
from posteriori.measurements.images import ImageInfo, read_image, write_image

__all__ = ["Depth", "ImageInfo", "depth", "read_array", "read_image", "write_image"]
