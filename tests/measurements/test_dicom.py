"""DICOM: the same volume in single slices and in frames of one file, and what other readers do to
it."""

from __future__ import annotations

import numpy as np
import pytest
from scans import INTERCEPT, SECRETS, SLOPE, STORED, series

from posteriori.measurements import read_measured

PLACES = [7.5, 0.0, 5.0, 2.5]  # of frames, as unordered as files may be
ORDERED = [1, 3, 2, 0]


def item(**values):
    made = pytest.importorskip("pydicom").Dataset()
    for name, value in values.items():
        setattr(made, name, value)
    return [made]


def enhanced(place, stored, *, places=PLACES, slopes=None, drift=0.0, **other):
    """One file of int16 frames, 2.5 mm apart, rows 0.7 and columns 0.6 mm."""
    pydicom = pytest.importorskip("pydicom")
    s = pydicom.Dataset()
    s.file_meta = pydicom.dataset.FileMetaDataset()
    s.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    s.file_meta.MediaStorageSOPClassUID = pydicom.uid.EnhancedCTImageStorage
    s.file_meta.MediaStorageSOPInstanceUID = s.SOPInstanceUID = pydicom.uid.generate_uid()
    s.SOPClassUID, s.Modality = pydicom.uid.EnhancedCTImageStorage, "CT"
    s.NumberOfFrames, s.Rows, s.Columns = stored.shape
    s.BitsAllocated = s.BitsStored = 16
    s.HighBit, s.PixelRepresentation, s.SamplesPerPixel = 15, 1, 1
    s.PhotometricInterpretation = "MONOCHROME2"
    rescale = item(RescaleSlope=SLOPE, RescaleIntercept=INTERCEPT)
    shared = pydicom.Dataset()
    shared.PixelMeasuresSequence = item(PixelSpacing=[0.7, 0.6], SliceThickness=9.0)
    shared.PlaneOrientationSequence = item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
    if slopes is None:
        shared.PixelValueTransformationSequence = rescale
    groups = []
    for k, z in enumerate(places):
        group = pydicom.Dataset()
        group.PlanePositionSequence = item(ImagePositionPatient=[-10.0, 20.0 + drift * z, 5.0 + z])
        if slopes is not None:
            group.PixelValueTransformationSequence = item(
                RescaleSlope=slopes[k], RescaleIntercept=INTERCEPT
            )
        groups.append(group)
    s.SharedFunctionalGroupsSequence, s.PerFrameFunctionalGroupsSequence = [shared], groups
    for word, value in {**SECRETS, **other}.items():
        setattr(s, word, value)
    s.PixelData = stored.astype(np.int16).tobytes()
    s.save_as(place, enforce_file_format=True)
    return place


def test_frames_of_one_file_are_the_volume_of_single_slices(tmp_path):
    """pydicom leaves the frames unscaled and unordered; other readers order them downwards."""
    single = read_measured(series(tmp_path / "scan", STORED, order=[2, 0, 3, 1]))
    unordered = np.empty_like(STORED)
    unordered[[ORDERED]] = STORED
    many = read_measured(enhanced(tmp_path / "scan.dcm", unordered))
    for m in (single, many):
        assert (m.axes, m.unit) == ("ZYX", "HU")
        assert m.spacing == pytest.approx((2.5, 0.7, 0.6))
        np.testing.assert_array_equal(m.data.numpy(), SLOPE * STORED + INTERCEPT)
        assert m.notes == ()
        assert not any(secret in repr(m) for secret in SECRETS.values())
    np.testing.assert_allclose(single.affine.numpy(), many.affine.numpy())


def test_each_slice_has_its_own_slope(tmp_path):
    """A reader whose first slice decides the type of all gives -1443 and -12216 for these."""
    slopes, stored = [1.0, 4.321, 12.7, 0.37], np.full((4, 3, 5), 30000)
    stored[0], stored[3] = 0, 1003
    expected = [
        INTERCEPT + slope * value[0, 0] for slope, value in zip(slopes, stored, strict=True)
    ]
    folder = tmp_path / "scan"
    series(folder, stored)
    pydicom = pytest.importorskip("pydicom")
    for k, slope in enumerate(slopes):
        place = folder / f"{k:03d}.dcm"
        one = pydicom.dcmread(place)
        one.RescaleSlope = slope
        one.save_as(place)
    many = enhanced(tmp_path / "scan.dcm", stored, places=[0, 2.5, 5, 7.5], slopes=slopes)
    for place in (folder, many):
        np.testing.assert_allclose(read_measured(place).data[:, 0, 0].numpy(), expected, rtol=1e-6)


def test_uneven_gaps_are_refused_in_both_forms(tmp_path):
    """Another reader makes the steps 1, 1, 1 mm of such frames."""
    with pytest.raises(ValueError, match="2.5 to 5 mm apart: some are missing"):
        read_measured(enhanced(tmp_path / "gap.dcm", STORED, places=[0, 2.5, 7.5, 10]))
    with pytest.raises(ValueError, match="2.5 to 5 mm apart: some are missing"):
        read_measured(series(tmp_path / "gap", STORED, places=[0, 2.5, 7.5, 10]))
    # Places that are rounded to a tenth of a millimetre are even enough, and it is said.
    m = read_measured(series(tmp_path / "rounded", STORED, places=[0, 2.6, 5.2, 7.7]))
    assert m.spacing[0] == pytest.approx(7.7 / 3)
    assert "2.5 to 2.6 mm apart; they are taken for even" in m.notes[0]


def test_a_tilted_gantry_shears_the_affine_and_is_said(tmp_path):
    """Another reader gives slices 5.385 mm apart, upright, the last of ten 18 mm off in y."""
    tilted = enhanced(tmp_path / "t.dcm", STORED, places=[0, 5, 10, 15], drift=0.4)
    leaning = series(tmp_path / "t", STORED, places=[0, 5, 10, 15])
    pydicom = pytest.importorskip("pydicom")
    for k, place in enumerate(sorted(leaning.iterdir())):
        one = pydicom.dcmread(place)
        one.ImagePositionPatient[1] += 2.0 * k
        one.save_as(place)
    for place in (tilted, leaning):
        m = read_measured(place)
        assert m.spacing == pytest.approx((5.0, 0.7, 0.6))
        assert m.affine[:3, 2].tolist() == pytest.approx([0, -2.0, 5.0])
        assert "slices move 2 mm beside their normal" in m.notes[0]
    one.ImagePositionPatient[1] += 3.0
    one.save_as(place / "003.dcm")
    with pytest.raises(ValueError, match="beside one line"):
        read_measured(leaning)


def test_a_single_slice_has_the_step_that_it_states_and_no_other(tmp_path):
    """Not 1 mm."""
    m = read_measured(series(tmp_path / "one", STORED[:1]))
    assert m.spacing == (None, 0.7, 0.6)
    assert m.affine is None
    assert "states no thickness" in m.notes[0]
    m = read_measured(series(tmp_path / "thick", STORED[:1], SliceThickness=3.0))
    assert m.spacing == pytest.approx((3.0, 0.7, 0.6))


def test_a_radiograph_keeps_its_numbers_and_names_its_pixels(tmp_path):
    """Other readers turn MONOCHROME1 over, and take the detector's pixels for the object's."""
    pydicom = pytest.importorskip("pydicom")
    folder = series(
        tmp_path / "x",
        STORED[:1],
        PhotometricInterpretation="MONOCHROME1",
        Modality="DX",
        ImagerPixelSpacing=[0.9, 0.8],
    )
    place = next(folder.iterdir())
    m = read_measured(place)
    np.testing.assert_array_equal(m.data.numpy(), SLOPE * STORED[0] + INTERCEPT)
    assert (m.axes, m.unit, m.spacing) == ("YX", "", (0.7, 0.6))
    said = " ".join(m.notes)
    assert "MONOCHROME1" in said
    assert "0.9 x 0.8 mm; the spacing here is that of PixelSpacing, of the object" in said
    one = pydicom.dcmread(place)
    del one.PixelSpacing
    one.save_as(place)
    m = read_measured(place)
    assert m.spacing == (0.9, 0.8)
    assert "pixels at the detector" in m.notes[1]


def test_numbers_of_12_bits_with_a_sign_are_negative_where_they_are(tmp_path):
    pydicom = pytest.importorskip("pydicom")
    folder = series(tmp_path / "x", np.full((1, 3, 5), 0x0FFF))
    place = next(folder.iterdir())
    one = pydicom.dcmread(place)
    one.BitsStored, one.HighBit = 12, 11
    one.save_as(place)
    assert read_measured(place).data.unique().tolist() == [-SLOPE + INTERCEPT]


def test_real_world_values_are_said_and_not_applied(tmp_path):
    mapping = item(RealWorldValueSlope=0.005, RealWorldValueIntercept=0.0)
    place = enhanced(tmp_path / "scan.dcm", STORED, RealWorldValueMappingSequence=mapping)
    m = read_measured(place)
    assert "real-world values is stated and was not applied" in m.notes[0]
    assert float(m.data[0, 0, 0]) == SLOPE * STORED[1, 0, 0] + INTERCEPT


def test_files_that_are_no_such_image_are_refused(tmp_path):
    (tmp_path / "x.dcm").write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match="is no DICOM file"):
        read_measured(tmp_path / "x.dcm")
    many = enhanced(tmp_path / "y.dcm", STORED)
    pydicom = pytest.importorskip("pydicom")
    one = pydicom.dcmread(many)
    del one.PerFrameFunctionalGroupsSequence
    one.save_as(many)
    with pytest.raises(ValueError, match="4 frames without a place for each"):
        read_measured(many)
