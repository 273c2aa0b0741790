"""A CT out of a folder of DICOM slices: geometry, order, choice of the series, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from dicom_phantom import group, write_ct_series, write_dicom, write_xray
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.sequence import Sequence
from scipy.spatial.transform import Rotation

from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.images.ct import read_ct

RNG = np.random.default_rng(11)
VALUES = RNG.integers(-1000, 2000, (6, 5, 7)).astype(np.int16)


def affine(spacing=(0.7, 0.9, 2.5), rotation=None, origin=(-30.0, -70.0, 400.0), flip_k=1) -> np.ndarray:
    """lps_from_ijk with right-angled axes; flip_k -1 stacks slices against their normal."""
    out = np.eye(4)
    axes = np.eye(3) if rotation is None else rotation
    out[:3, :3] = axes * spacing * [1, 1, flip_k]
    out[:3, 3] = origin
    return out


def ras_of_voxel(lps_from_ijk: np.ndarray, i: int, j: int, k: int) -> np.ndarray:
    x, y, z, _ = lps_from_ijk @ [i, j, k, 1]
    return np.array([-x, -y, z])


def assert_same_ct(ct, values: np.ndarray, lps_from_ijk: np.ndarray) -> None:
    """Every voxel where it was put, whatever the order in which the reader stacked the slices."""
    ijk_from_ras = np.linalg.inv(ct.ras_from_ijk)
    assert ct.values.shape == values.shape
    for k in range(values.shape[0]):
        for j, i in ((0, 0), (values.shape[1] - 1, 2), (1, values.shape[2] - 1)):
            index = (ijk_from_ras @ [*ras_of_voxel(lps_from_ijk, i, j, k), 1])[:3]
            at = np.round(index).astype(int)
            np.testing.assert_allclose(index, at, atol=1e-4)
            assert ct.values[at[2], at[1], at[0]] == values[k, j, i]


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_ct(path)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("flip_k", [1, -1])
@pytest.mark.parametrize("seed", [None, 1, 2])
def test_oblique_series_in_any_order_of_files(tmp_path, seed, flip_k):
    rotation = None if seed is None else Rotation.random(random_state=seed).as_matrix()
    matrix = affine(rotation=rotation, flip_k=flip_k)
    names = [f"{n}.dcm" for n in RNG.permutation(len(VALUES))]
    write_ct_series(tmp_path, VALUES, matrix, names=names)
    ct = read_ct(tmp_path)
    assert ct.values.dtype == np.int16
    np.testing.assert_allclose(ct.spacing_mm, (0.7, 0.9, 2.5), rtol=1e-6)
    assert_same_ct(ct, VALUES, matrix)


@settings(max_examples=12)
@given(
    seed=st.integers(0, 10**6),
    shape=st.tuples(st.integers(2, 5), st.integers(2, 6), st.integers(3, 6)),
    spacing=st.tuples(st.floats(0.2, 3), st.floats(0.2, 3), st.floats(0.3, 6)),
    jitter=st.floats(0, 0.05),
)
def test_any_header_keeps_every_voxel_in_place(tmp_path_factory, seed, shape, spacing, jitter):
    folder = tmp_path_factory.mktemp("series")
    rng = np.random.default_rng(seed)
    values = rng.integers(-1000, 2000, shape).astype(np.int16)
    values[0, 0, 0], values[-1, -1, -1] = -1000, 1500
    matrix = affine(spacing, Rotation.random(random_state=seed).as_matrix(), rng.uniform(-500, 500, 3))
    write_ct_series(folder, values, matrix)
    assert_same_ct(read_ct(folder), values, matrix)


def test_against_itk(tmp_path):
    matrix = affine(rotation=Rotation.random(random_state=5).as_matrix())
    write_ct_series(tmp_path, VALUES, matrix)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path)))
    image = reader.Execute()
    ct = read_ct(tmp_path)
    np.testing.assert_array_equal(ct.values, sitk.GetArrayFromImage(image))
    for ijk in [(0, 0, 0), (6, 0, 0), (0, 4, 5)]:
        x, y, z = image.TransformIndexToPhysicalPoint(ijk)
        np.testing.assert_allclose((ct.ras_from_ijk @ [*ijk, 1])[:3], [-x, -y, z], atol=1e-3)


def test_slope_and_signed_pixels(tmp_path):
    write_ct_series(tmp_path, VALUES, affine(), RescaleSlope=0.5, RescaleIntercept=-500.25)
    ct = read_ct(tmp_path)
    assert ct.values.dtype == np.float32
    np.testing.assert_allclose(ct.values, (VALUES + 1024) * 0.5 - 500.25)


def test_slices_with_their_own_rescale(tmp_path):
    write_ct_series(tmp_path, VALUES, affine(), RescaleIntercept=[float(-1024 - 10 * k) for k in range(6)])
    np.testing.assert_array_equal(read_ct(tmp_path).values, VALUES - 10 * np.arange(6)[:, None, None])


@pytest.mark.parametrize("compression", ["rle", "jpeg2000"])
def test_compressed_pixels(tmp_path, compression):
    values = np.repeat(np.repeat(VALUES, 8, axis=1), 8, axis=2)  # JPEG 2000 wants some size
    matrix = affine()
    write_ct_series(tmp_path, values, matrix)
    for file in tmp_path.iterdir():
        if compression == "rle":
            dataset = pydicom.dcmread(file)
            dataset.compress(pydicom.uid.RLELossless)
            dataset.save_as(file)
        else:
            compress_with_gdcm(file)
    assert read_syntaxes(tmp_path) != {pydicom.uid.ExplicitVRLittleEndian}
    assert_same_ct(read_ct(tmp_path), values, matrix)


def compress_with_gdcm(file: Path, **changes: object) -> None:
    """Rewrite a file as JPEG 2000 lossless through SimpleITK, and put its header back."""
    header = pydicom.dcmread(file)
    image = sitk.GetImageFromArray(header.pixel_array)
    packed = file.with_suffix(".packed.dcm")
    writer = sitk.ImageFileWriter()
    writer.SetFileName(str(packed))
    writer.UseCompressionOn()
    writer.SetCompressor("JPEG2000")
    writer.Execute(image)
    dataset = pydicom.dcmread(packed)
    header.file_meta.TransferSyntaxUID = dataset.file_meta.TransferSyntaxUID
    header.PixelData = dataset.PixelData
    header["PixelData"].is_undefined_length = True
    for keyword, value in changes.items():
        setattr(header, keyword, value)
    header.save_as(file)
    packed.unlink()


def read_syntaxes(folder: Path) -> set[str]:
    return {pydicom.dcmread(f).file_meta.TransferSyntaxUID for f in folder.iterdir()}


def test_the_largest_series_is_taken_and_the_others_named(tmp_path):
    write_ct_series(tmp_path / "a", VALUES, affine(), SeriesNumber=2, SeriesDescription="bone")
    write_ct_series(tmp_path / "b", VALUES[:4] + 1, affine(), SeriesNumber=3, SeriesDescription="lung")
    write_ct_series(tmp_path, VALUES[:1], affine(), ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    write_xray(tmp_path / "fluoro.dcm", np.arange(64, dtype=np.uint16).reshape(8, 8))
    (tmp_path / "README.txt").write_text("x" * 500)
    ct = read_ct(tmp_path)
    np.testing.assert_array_equal(ct.values, VALUES)
    assert "2 'bone'" in ct.source
    assert "3 'lung' of 4 slices" in ct.source.split("also there")[1]


def test_one_slice_names_its_series(tmp_path):
    write_ct_series(tmp_path, VALUES, affine(), SeriesNumber=2)
    other = write_ct_series(tmp_path, VALUES[:4] + 1, affine(), SeriesNumber=3)
    ct = read_ct(next(tmp_path.glob(f"{other[-6:]}_002*")))
    np.testing.assert_array_equal(ct.values, VALUES[:4] + 1)


def test_two_studies_of_one_name_in_two_folders_are_ambiguous(tmp_path):
    """The usual layout of a medium: the same number, description and file names, before and after."""
    for study in ("preop", "postop"):
        write_ct_series(tmp_path / study, VALUES, affine(), SeriesNumber=2, SeriesDescription="pelvis")
    with pytest.raises(InputError, match=r"preop.*postop|postop.*preop"):
        read_ct(tmp_path)
    assert_same_ct(read_ct(tmp_path / "preop"), VALUES, affine())


def test_two_series_of_one_size_are_ambiguous(tmp_path):
    write_ct_series(tmp_path, VALUES, affine(), SeriesNumber=2, SeriesDescription="bone")
    write_ct_series(tmp_path, VALUES + 1, affine(), SeriesNumber=3, SeriesDescription="lung")
    message = refusal(tmp_path)
    assert "'bone'" in message
    assert "'lung'" in message
    assert "one slice of the series" in message


def test_gantry_tilt(tmp_path):
    matrix = affine()
    matrix[:3, 2] = [0.0, np.tan(np.radians(12.0)) * 2.5, 2.5]
    for k, plane in enumerate(VALUES):
        one = matrix.copy()
        one[:3, 3] += k * matrix[:3, 2]
        one[:3, 2] = [0, 0, 2.5]
        write_ct_series(tmp_path, plane[None], one, names=[f"{k}.dcm"], SeriesInstanceUID="1.2.3")
    assert "12.0 degrees" in refusal(tmp_path)


def test_missing_slice(tmp_path):
    write_ct_series(tmp_path, VALUES, affine(), names=[f"{k}.dcm" for k in range(6)])
    (tmp_path / "3.dcm").unlink()
    message = refusal(tmp_path)
    assert "5.00 mm between 2.dcm and 4.dcm" in message
    assert "2.50 mm" in message


def test_rounded_positions_are_no_missing_slices(tmp_path):
    step, names = 0.625, [f"{k}.dcm" for k in range(6)]
    matrix = affine(spacing=(0.7, 0.9, step))
    positions = [[-30.0, -70.0, round(400.0 + step * k, 1)] for k in range(6)]
    write_ct_series(tmp_path, VALUES, matrix, names=names, ImagePositionPatient=positions)
    np.testing.assert_array_equal(read_ct(tmp_path).values, VALUES)


def test_passes_over_the_same_place_are_told_apart_by_acquisition_or_refused(tmp_path):
    for acquisition in (1, 2):
        write_ct_series(
            tmp_path / "told" / str(acquisition),
            VALUES[: 4 + acquisition],
            affine(),
            SeriesInstanceUID="1.2.3",
            AcquisitionNumber=acquisition,
        )
        write_ct_series(tmp_path / "4d" / str(acquisition), VALUES, affine(), SeriesInstanceUID="1.2.3")
    ct = read_ct(tmp_path / "told")
    np.testing.assert_array_equal(ct.values, VALUES)
    assert "acquisition 2" in ct.source
    assert "several slices at one place" in refusal(tmp_path / "4d")


def test_copies_of_one_file_count_once(tmp_path):
    write_ct_series(tmp_path, VALUES, affine())
    shutil.copytree(tmp_path, tmp_path / "copy")
    np.testing.assert_array_equal(read_ct(tmp_path).values, VALUES)


def test_enhanced_ct_in_one_file(tmp_path):
    matrix = affine(rotation=Rotation.random(random_state=9).as_matrix())
    axes = matrix[:3, :3] / np.linalg.norm(matrix[:3, :3], axis=0)
    order = [3, 0, 5, 1, 4, 2]
    frames = [
        group(PlanePositionSequence={"ImagePositionPatient": (matrix[:3, 2] * k + matrix[:3, 3]).round(6).tolist()})
        for k in order
    ]
    shared = group(
        PlaneOrientationSequence={"ImageOrientationPatient": [*axes[:, 0].round(9), *axes[:, 1].round(9)]},
        PixelMeasuresSequence={"PixelSpacing": [0.9, 0.7]},
        PixelValueTransformationSequence={"RescaleSlope": 2, "RescaleIntercept": -1024},
    )
    write_dicom(
        tmp_path / "enhanced.dcm",
        ((VALUES[order].astype(np.int32) + 1024) // 2).astype(np.uint16),
        SOPClassUID="1.2.840.10008.5.1.4.1.1.2.1",
        Modality="CT",
        ImageType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"],
        SharedFunctionalGroupsSequence=Sequence([shared]),
        PerFrameFunctionalGroupsSequence=Sequence(frames),
    )
    assert_same_ct(read_ct(tmp_path), (VALUES.astype(int) + 1024) // 2 * 2 - 1024, matrix)


def test_what_is_no_ct_folder(tmp_path):
    (tmp_path / "empty").mkdir()
    assert "holds no DICOM file" in refusal(tmp_path / "empty")
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "note.dcm").write_text("hello " * 100)
    assert "holds no DICOM file" in refusal(tmp_path / "text")
    (tmp_path / "xa").mkdir()
    write_xray(tmp_path / "xa" / "x.dcm", np.arange(64, dtype=np.uint16).reshape(8, 8))
    assert "only XA" in refusal(tmp_path / "xa")
    write_ct_series(tmp_path / "one", VALUES[:1], affine())
    assert "one slice" in refusal(tmp_path / "one")
    write_ct_series(tmp_path / "nowhere", VALUES, affine(), ImagePositionPatient=None)
    assert "where it lies" in refusal(tmp_path / "nowhere")
    write_ct_series(tmp_path / "flat", VALUES, affine(), PixelSpacing=[0.0, 1.0])
    assert "PixelSpacing [0.0, 1.0]" in refusal(tmp_path / "flat")


def test_damaged_slices(tmp_path, capfd):
    write_ct_series(tmp_path, VALUES, affine(), names=[f"{k}.dcm" for k in range(6)])
    data = (tmp_path / "2.dcm").read_bytes()
    (tmp_path / "2.dcm").write_bytes(data[:-20])
    assert "2.dcm" in refusal(tmp_path)
    (tmp_path / "2.dcm").write_bytes(data[:250])  # so short that it does not say that it is a CT
    assert "5.00 mm between 1.dcm and 3.dcm" in refusal(tmp_path)
    dataset = pydicom.dcmread(tmp_path / "3.dcm")
    (tmp_path / "2.dcm").write_bytes(data)
    del dataset.PixelData
    dataset.save_as(tmp_path / "3.dcm")
    assert "3.dcm holds no image" in refusal(tmp_path)
    assert capfd.readouterr() == ("", "")
