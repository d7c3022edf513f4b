"""A DICOM series of a person who does not exist."""

from __future__ import annotations

import numpy as np
import pytest

# What no file that is written may hold.
SECRETS = {
    "PatientName": "Doe^Jane^Q",
    "PatientID": "SECRET-ID-4711",
    "PatientBirthDate": "19700101",
    "InstitutionName": "Hidden Clinic",
    "AccessionNumber": "ACC-0815",
}
SLOPE, INTERCEPT = 2.0, -1024.0


def series(folder, stored, *, places=None, turn=(1, 0, 0, 0, 1, 0), order=None, **other):
    """A DICOM series of int16 slices (D, H, W), 2.5 mm apart, rows 0.7 and columns 0.6 mm."""
    pydicom = pytest.importorskip("pydicom")
    folder.mkdir(exist_ok=True)
    normal = np.cross(turn[:3], turn[3:])
    uid = pydicom.uid.generate_uid()
    for k, pixels in enumerate(stored):
        s = pydicom.Dataset()
        s.file_meta = pydicom.dataset.FileMetaDataset()
        s.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        s.file_meta.MediaStorageSOPClassUID = pydicom.uid.CTImageStorage
        s.file_meta.MediaStorageSOPInstanceUID = s.SOPInstanceUID = pydicom.uid.generate_uid()
        s.SOPClassUID = pydicom.uid.CTImageStorage
        s.SeriesInstanceUID, s.Modality = uid, "CT"
        s.Rows, s.Columns = pixels.shape
        s.BitsAllocated = s.BitsStored = 16
        s.HighBit, s.PixelRepresentation, s.SamplesPerPixel = 15, 1, 1
        s.PhotometricInterpretation = "MONOCHROME2"
        s.PixelSpacing, s.ImageOrientationPatient = [0.7, 0.6], list(turn)
        at = 2.5 * k if places is None else places[k]
        s.ImagePositionPatient = list(np.array([-10.0, 20.0, 5.0]) + at * normal)
        s.RescaleSlope, s.RescaleIntercept = SLOPE, INTERCEPT
        for word, value in {**SECRETS, **other}.items():
            setattr(s, word, value)
        s.PixelData = pixels.astype(np.int16).tobytes()
        # Neither names nor numbers say anything of the order.
        number = (order or list(range(len(stored))))[k]
        s.InstanceNumber, name = number + 1, f"{number:03d}.dcm"
        s.save_as(folder / name, enforce_file_format=True)
    return folder


STORED = np.arange(4 * 3 * 5).reshape(4, 3, 5) - 7
