"""DICOM X-rays: what camera they state and on what grounds, which frame, which values, which pixels count."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_phantom import group, write_dicom, write_xray
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.sequence import Sequence
from test_images_dicom_series import compress_with_gdcm

from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.images.dicom import read_dicom, read_pixels
from XRayRegistrationLib.images.dicom_camera import acquisition_metadata, camera_from_dicom
from XRayRegistrationLib.images.dicom_shutter import open_field
from XRayRegistrationLib.images.dicom_values import value_hints
from XRayRegistrationLib.images.xray_file import read_xray

RNG = np.random.default_rng(4)
HEIGHT, WIDTH = 24, 36
PIXELS = RNG.integers(100, 4000, (HEIGHT, WIDTH)).astype(np.uint16)


def camera_of(path: Path, frame: int = 0, **given_values):
    dataset = read_dicom(path, "the X-ray")
    return camera_from_dicom(dataset, int(dataset.Columns), int(dataset.Rows), frame, **given_values)


def refusal(path: Path, **options) -> str:
    with pytest.raises(InputError) as caught:
        read_xray(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


# --- the camera -----------------------------------------------------------------------------------


def test_a_stated_camera_projects_as_the_detector_is_built(tmp_path):
    camera, provenance, warnings = camera_of(write_xray(tmp_path / "x.dcm", PIXELS))
    # a point 500 mm from the source, 10 mm right and 6 mm down, falls 20 mm right and 12 mm down on the detector
    u, v = camera.project([10.0, 6.0, 500.0])
    assert u == pytest.approx(17.5 + 20 / 0.5)
    assert v == pytest.approx(11.5 + 12 / 0.4)
    assert provenance["source_detector_distance_mm"] == "found: DICOM DistanceSourceToDetector (0018,1110)"
    assert provenance["pixel_spacing_mm"] == "found: DICOM ImagerPixelSpacing (0018,1164)"
    assert provenance["principal_point_px"] == "assumed: the image's centre"
    assert warnings == []


@pytest.mark.parametrize(
    ("attributes", "spacing", "provenance"),
    [
        # the imager's spacing wins over one that is at the patient
        ({"PixelSpacing": [0.2, 0.25]}, (0.5, 0.4), "found: DICOM ImagerPixelSpacing"),
        # calibrated at the patient, half way: the detector's is twice as large
        (
            {"ImagerPixelSpacing": None, "PixelSpacing": [0.2, 0.25], "PixelSpacingCalibrationType": "GEOMETRY",
             "DistanceSourceToPatient": 500.0},
            (0.5, 0.4), "found: DICOM PixelSpacing",
        ),
        (
            {"ImagerPixelSpacing": None, "PixelSpacing": [0.2, 0.25], "PixelSpacingCalibrationType": "FIDUCIAL",
             "EstimatedRadiographicMagnificationFactor": 2.0},
            (0.5, 0.4), "found: DICOM PixelSpacing",
        ),
        # an angiograph's PixelSpacing is a calibration, though it does not say so
        (
            {"ImagerPixelSpacing": None, "PixelSpacing": [0.2, 0.25], "DistanceSourceToPatient": 500.0},
            (0.5, 0.4), "assumed: DICOM PixelSpacing (0028,0030) at the patient x magnification 2.0000",
        ),
        # a plate's is its own
        (
            {"Modality": "DX", "ImagerPixelSpacing": None, "PixelSpacing": [0.2, 0.25], "DistanceSourceToPatient": 500.0},
            (0.25, 0.2), "assumed: DICOM PixelSpacing (0028,0030) is the detector's",
        ),
        ({"ImagerPixelSpacing": None, "PixelSpacing": [0.2, 0.25]}, (0.25, 0.2), "no magnification"),
        ({"ImagerPixelSpacing": None, "NominalScannedPixelSpacing": [0.2, 0.25]}, (0.25, 0.2), "digitised film"),
    ],
)  # fmt: skip
def test_pixel_spacing(tmp_path, attributes, spacing, provenance):
    camera, said, _ = camera_of(write_xray(tmp_path / "x.dcm", PIXELS, **attributes))
    assert camera.pixel_spacing_mm == pytest.approx(spacing)
    assert provenance in said["pixel_spacing_mm"]


def test_what_is_not_stated_has_to_be_given(tmp_path):
    path = write_xray(tmp_path / "x.dcm", PIXELS, ImagerPixelSpacing=None, DistanceSourceToDetector=None)
    assert "(0018,1110)" in refusal(path)
    message = refusal(path, source_detector_distance_mm=1000.0)
    assert "(0018,1164)" in message
    assert "--pixel-spacing" in message
    xray = read_xray(path, source_detector_distance_mm=1000.0, pixel_spacing_mm=(0.5, 0.4))
    assert xray.camera.pixel_spacing_mm == pytest.approx((0.5, 0.4))
    assert xray.provenance["pixel_spacing_mm"] == xray.provenance["source_detector_distance_mm"] == "given"
    calibrated = {"PixelSpacing": [0.2, 0.2], "PixelSpacingCalibrationType": "FIDUCIAL", "ImagerPixelSpacing": None}
    assert "calibrated by FIDUCIAL" in refusal(write_xray(tmp_path / "y.dcm", PIXELS, **calibrated))
    assert "(0018,1110)" in refusal(write_xray(tmp_path / "z.dcm", PIXELS, DistanceSourceToDetector=0))


def test_distance_by_magnification_and_its_disagreement(tmp_path):
    path = write_xray(
        tmp_path / "x.dcm",
        PIXELS,
        DistanceSourceToDetector=None,
        DistanceSourceToPatient=700.0,
        EstimatedRadiographicMagnificationFactor=1.5,
    )
    camera, provenance, warnings = camera_of(path)
    assert camera.source_detector_distance_mm == pytest.approx(1050.0)
    assert "x EstimatedRadiographicMagnificationFactor" in provenance["source_detector_distance_mm"]
    assert warnings == []
    other = write_xray(tmp_path / "y.dcm", PIXELS, DistanceSourceToPatient=700.0, EstimatedRadiographicMagnificationFactor=1.5)
    assert "1.429" in camera_of(other)[2][0]


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
@pytest.mark.parametrize("flip", [False, True])
def test_an_image_of_a_part_of_the_detector_is_off_centre(tmp_path, turn, flip):
    """A 40 x 60 mm detector of 0.2 mm elements; the image is cut from it by numpy, turned and mirrored."""
    element, rows, columns = 0.2, 200, 300
    origin, part = (30, 110), (80, 120)  # rows, columns of elements
    marked = np.zeros((rows, columns))
    marked[100, 150] = 1.0  # one element right and below of the centre (99.5, 149.5), where the central ray falls
    shown = np.rot90(marked[origin[0] : origin[0] + part[0], origin[1] : origin[1] + part[1]], -turn // 90)
    shown = shown[:, ::-1] if flip else shown
    v, u = np.argwhere(shown == 1)[0]
    # half an element from the mark to the centre: up and left before the turn
    back = {0: (-0.5, -0.5), 90: (0.5, -0.5), 180: (0.5, 0.5), 270: (-0.5, 0.5)}[turn]  # (right, down)
    expected = (u + (-back[0] if flip else back[0]), v + back[1])
    path = write_xray(
        tmp_path / "x.dcm",
        np.arange(shown.size, dtype=np.uint16).reshape(shown.shape),
        ImagerPixelSpacing=[element, element],
        FieldOfViewOrigin=list(map(float, origin)),
        FieldOfViewRotation=float(turn),
        FieldOfViewHorizontalFlip="YES" if flip else "NO",
        DetectorElementSpacing=[element, element],
        DetectorActiveDimensions=[rows * element, columns * element],
    )
    camera, provenance, _ = camera_of(path)
    assert (camera.K[0, 2], camera.K[1, 2]) == pytest.approx(expected)
    assert provenance["principal_point_px"].startswith("found: DICOM FieldOfViewOrigin (0018,7030)")


def test_binning_and_an_inactive_border_do_not_move_the_centre(tmp_path):
    # 100 x 100 active elements of 0.1 mm inside a border of 4; the image shows all of them, 2 x 2 to a pixel
    path = write_xray(
        tmp_path / "x.dcm",
        np.arange(2500, dtype=np.uint16).reshape(50, 50),
        ImagerPixelSpacing=[0.2, 0.2],
        FieldOfViewOrigin=[4.0, 4.0],
        DetectorActiveOrigin=[4.0, 4.0],
        DetectorElementSpacing=[0.1, 0.1],
        DetectorActiveDimensions=[10.0],
    )
    camera, _, _ = camera_of(path)
    assert (camera.K[0, 2], camera.K[1, 2]) == pytest.approx((24.5, 24.5))


def test_values_that_are_no_numbers_are_named(tmp_path):
    path = write_xray(tmp_path / "x.dcm", PIXELS, ImagerPixelSpacing=[0.2, 0.2, 0.2])
    assert "ImagerPixelSpacing (0018,1164) is" in refusal(path)
    data = (tmp_path / "x.dcm").read_bytes()
    (tmp_path / "y.dcm").write_bytes(data.replace(b"1000.0", b"10 0.0"))
    assert "DistanceSourceToDetector (0018,1110)" in refusal(tmp_path / "y.dcm")


@settings(max_examples=40)
@given(
    size=st.tuples(st.integers(8, 40), st.integers(8, 40)),
    spacing=st.tuples(st.floats(0.05, 2), st.floats(0.05, 2)),
    distance=st.floats(300, 3000),
    magnification=st.floats(1.01, 3),
    modality=st.sampled_from(["XA", "RF", "DX", "CR"]),
    photometric=st.sampled_from(["MONOCHROME1", "MONOCHROME2"]),
    calibrated=st.booleans(),
)
def test_any_header_states_its_own_point_phantom(
    tmp_path_factory, size, spacing, distance, magnification, modality, photometric, calibrated
):
    """A point at the patient, seen by similar triangles, falls on the pixel that the header's numbers say."""
    width, height = size
    at_patient = {
        "PixelSpacing": [spacing[1] / magnification, spacing[0] / magnification],
        "PixelSpacingCalibrationType": "GEOMETRY",
        "EstimatedRadiographicMagnificationFactor": magnification,
    }
    path = write_dicom(
        tmp_path_factory.mktemp("x") / "x.dcm",
        np.random.default_rng(0).integers(0, 4000, (height, width)).astype(np.uint16),
        Modality=modality,
        PhotometricInterpretation=photometric,
        DistanceSourceToDetector=f"{distance:.10g}",
        **({k: ([f"{x:.10g}" for x in v] if isinstance(v, list) else v if isinstance(v, str) else f"{v:.10g}")
            for k, v in at_patient.items()} if calibrated
           else {"ImagerPixelSpacing": [f"{spacing[1]:.10g}", f"{spacing[0]:.10g}"]}),
    )  # fmt: skip
    xray = read_xray(path)
    assert xray.line_integrals.shape == xray.mask.shape == (height, width)
    right, down, depth = 0.01 * distance, -0.02 * distance, distance / magnification
    u, v = xray.camera.project([right, down, depth])
    assert u == pytest.approx((width - 1) / 2 + right * magnification / spacing[0], rel=1e-6)
    assert v == pytest.approx((height - 1) / 2 + down * magnification / spacing[1], rel=1e-6)


# --- frames, angles, enhanced objects -------------------------------------------------------------


def test_frames_and_their_angles(tmp_path):
    frames = np.stack([PIXELS, PIXELS + 1, PIXELS + 2])
    path = write_xray(
        tmp_path / "x.dcm",
        frames,
        PositionerPrimaryAngle=-30.0,
        PositionerSecondaryAngle=10.0,
        PositionerPrimaryAngleIncrement=[0.0, 1.5, 3.0],
        DistanceSourceToPatient=700.0,
        PatientPosition="HFS",
    )
    dataset = read_dicom(path, "the X-ray")
    for n in range(3):
        np.testing.assert_array_equal(read_pixels(dataset, path, "the X-ray", n).values, frames[n])
        found = acquisition_metadata(dataset, n)
        assert found["positioner_primary_angle_deg"] == -30.0 + 1.5 * n
        assert found["positioner_secondary_angle_deg"] == 10.0
        assert found["source_object_distance_mm"] == 700.0
        assert (found["frame"], found["number_of_frames"], found["patient_position"]) == (n, 3, "HFS")
    assert read_xray(path).metadata["frame"] == 1
    assert read_xray(path).provenance["frame"] == "assumed: the middle one, 1 of 0 to 2"
    assert "frame" not in read_xray(path, frame=2).provenance
    assert "allowed is 0 to 2" in refusal(path, frame=3)
    assert "allowed is 0 to 2" in refusal(path, frame=-1)


def test_enhanced_xa_states_its_geometry_in_functional_groups(tmp_path):
    shared = group(
        XRayGeometrySequence={"DistanceSourceToDetector": 1200.0},
        FramePixelDataPropertiesSequence={"ImagerPixelSpacing": [0.3, 0.3]},
    )
    frames = [group(PositionerPositionSequence={"PositionerPrimaryAngle": float(a)}) for a in (5, 15)]
    path = write_dicom(
        tmp_path / "x.dcm",
        np.stack([PIXELS, PIXELS]),
        SharedFunctionalGroupsSequence=Sequence([shared]),
        PerFrameFunctionalGroupsSequence=Sequence(frames),
    )
    camera, _, _ = camera_of(path, 1)
    assert camera.K[0, 0] == pytest.approx(4000.0)
    assert acquisition_metadata(read_dicom(path, "the X-ray"), 1)["positioner_primary_angle_deg"] == 15.0


# --- values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("rescale", [(1.0, 0.0), (2.0, -100.0)])
def test_stored_values_come_back_whatever_the_encoding(tmp_path, compressed, photometric, rescale):
    stored = np.kron(PIXELS, np.ones((4, 4), np.uint16)).astype(np.uint16)
    path = write_xray(tmp_path / "x.dcm", stored, RescaleSlope=rescale[0], RescaleIntercept=rescale[1])
    if compressed:
        compress_with_gdcm(path)
    dataset = pydicom.dcmread(path)
    dataset.PhotometricInterpretation = photometric
    dataset.save_as(path)
    assert dataset.file_meta.TransferSyntaxUID.is_compressed == compressed
    values = read_pixels(read_dicom(path, "the X-ray"), path, "the X-ray").values
    np.testing.assert_array_equal(values, stored * rescale[0] + rescale[1])


def test_modality_lut_and_no_window(tmp_path):
    lut = pydicom.Dataset()
    lut.LUTDescriptor = [4, 10, 16]
    lut.LUTData = np.array([0, 100, 400, 900], "<u2").tobytes()
    stored = np.tile(np.array([8, 10, 11, 12, 13, 20], np.uint16), (8, 2))
    path = write_xray(tmp_path / "x.dcm", stored, ModalityLUTSequence=Sequence([lut]), WindowCenter=100, WindowWidth=10)
    values = read_pixels(read_dicom(path, "the X-ray"), path, "the X-ray").values
    np.testing.assert_array_equal(values[0, :6], [0, 0, 100, 400, 900, 900])


def test_colour_is_refused_unless_it_is_grey(tmp_path):
    grey = np.repeat(RNG.integers(0, 255, (20, 20, 1)).astype(np.uint8), 3, axis=2)
    assert read_xray(write_xray(tmp_path / "grey.dcm", grey)).mask.shape == (20, 20)
    grey[3, 4, 1] ^= 9
    assert "in colour; convert it to greyscale" in refusal(write_xray(tmp_path / "colour.dcm", grey))


@pytest.mark.parametrize(
    ("attributes", "polarity", "logarithmic"),
    [
        ({"PixelIntensityRelationship": "LIN", "PixelIntensityRelationshipSign": 1}, "bone_dark", False),
        ({"PixelIntensityRelationship": "LOG", "PixelIntensityRelationshipSign": -1}, "bone_bright", True),
        ({"PixelIntensityRelationship": "LOG"}, "bone_dark", True),
        ({"Modality": "DX"}, "bone_bright", False),
        ({"Modality": "CR", "PhotometricInterpretation": "MONOCHROME1"}, "bone_dark", False),
        ({"PhotometricInterpretation": "MONOCHROME1"}, "bone_bright", False),
    ],
)
def test_header_hints(tmp_path, attributes, polarity, logarithmic):
    hints = value_hints(read_dicom(write_xray(tmp_path / "x.dcm", PIXELS, **attributes), "the X-ray"))
    assert (hints.polarity, hints.logarithmic) == (polarity, logarithmic)


def test_a_hint_decides_where_the_pixels_do_not(tmp_path):
    noise = RNG.integers(1000, 1100, (64, 64)).astype(np.uint16)
    for sign, word in ((1, "bone dark"), (-1, "bone bright")):
        xray = read_xray(write_xray(tmp_path / "x.dcm", noise, PixelIntensityRelationshipSign=sign))
        assert xray.provenance["polarity"] == f"assumed: {word}, as the header says"


def test_logarithms_are_not_taken_twice(tmp_path):
    lines = np.add.outer(np.linspace(0, 1, 40), np.linspace(0, 2, 50))
    stored = np.round(4000 - 1000 * lines).astype(np.uint16)
    path = write_xray(tmp_path / "x.dcm", stored, PixelIntensityRelationship="LOG", PixelIntensityRelationshipSign=1)
    found = read_xray(path, polarity="bone_dark", mask=None).line_integrals
    slope, _ = np.polyfit(lines.ravel(), found.ravel(), 1)
    np.testing.assert_allclose(found - found[0, 0], slope * lines, atol=1.0)
    assert slope == pytest.approx(1000.0, rel=1e-3)


# --- which pixels count ---------------------------------------------------------------------------


def test_shutters_and_collimators(tmp_path):
    def field(**attributes) -> np.ndarray | None:
        dataset = read_dicom(write_xray(tmp_path / "x.dcm", PIXELS, **attributes), "the X-ray")
        return open_field(dataset, HEIGHT, WIDTH)

    assert field() is None
    box = field(
        ShutterShape="RECTANGULAR",
        ShutterLeftVerticalEdge=3,
        ShutterRightVerticalEdge=30,
        ShutterUpperHorizontalEdge=5,
        ShutterLowerHorizontalEdge=20,
    )
    assert box is not None
    assert [n.min() for n in np.nonzero(box)] == [4, 2]  # row 5 and column 3, counted from 1
    assert [n.max() for n in np.nonzero(box)] == [19, 29]
    disk = field(CollimatorShape="CIRCULAR", CenterOfCircularCollimator=[12, 18], RadiusOfCircularCollimator=5)
    assert disk is not None
    assert disk.sum() == sum(x * x + y * y <= 25 for x in range(-5, 6) for y in range(-5, 6))
    assert disk[11, 17 + 5]
    assert not disk[11, 17 + 6]
    triangle = field(ShutterShape="POLYGONAL", VerticesOfThePolygonalShutter=[1, 1, 21, 1, 21, 31])
    assert triangle is not None
    assert triangle[15, 5]
    assert not triangle[5, 15]
    assert triangle.sum() == pytest.approx(300, abs=30)
    both = field(
        CollimatorShape=["CIRCULAR", "RECTANGULAR"],
        CenterOfCircularCollimator=[12, 18],
        RadiusOfCircularCollimator=5,
        CollimatorLeftVerticalEdge=18,
        CollimatorRightVerticalEdge=36,
        CollimatorUpperHorizontalEdge=1,
        CollimatorLowerHorizontalEdge=24,
    )
    assert both is not None
    assert both.sum() == (disk & (np.arange(WIDTH) >= 17)).sum()


def test_header_fields_and_padding_go_into_the_mask(tmp_path):
    pixels = RNG.integers(1000, 1100, (64, 64)).astype(np.uint16)
    pixels[:, 50:] = 3
    path = write_xray(
        tmp_path / "x.dcm",
        pixels,
        PixelPaddingValue=3,
        ShutterShape="RECTANGULAR",
        ShutterLeftVerticalEdge=11,
        ShutterRightVerticalEdge=64,
        ShutterUpperHorizontalEdge=1,
        ShutterLowerHorizontalEdge=64,
    )
    xray = read_xray(path)
    assert not xray.mask[:, :10].any()
    assert not xray.mask[:, 50:].any()
    assert xray.mask[5:-5, 15:45].all()
    assert "header's collimator" in xray.provenance["mask"]
    assert read_xray(path, mask=None).mask.all()


def test_a_mirrored_picture_takes_its_mask_along(tmp_path):
    # rows run to the patient's left in an AP view as displayed; this one says that they run to the right
    path = write_xray(tmp_path / "x.dcm", PIXELS, Modality="DX", ViewPosition="AP", PatientOrientation=["R", "F"])
    mask = np.ones((HEIGHT, WIDTH), bool)
    mask[:, :9] = False
    plain = write_xray(tmp_path / "y.dcm", PIXELS, Modality="DX", ViewPosition="AP", PatientOrientation=["L", "F"])
    mirrored, upright = read_xray(path, mask=mask), read_xray(plain, mask=mask)
    assert mirrored.metadata.get("mirrored_back")
    np.testing.assert_array_equal(mirrored.mask, mask[:, ::-1])
    np.testing.assert_array_equal(upright.mask, mask)
    np.testing.assert_allclose(mirrored.line_integrals[mirrored.mask], upright.line_integrals[:, ::-1][mirrored.mask], rtol=1e-6)


# --- what is refused ------------------------------------------------------------------------------


def test_what_is_no_xray(tmp_path, capfd):
    slices = write_dicom(tmp_path / "ct.dcm", PIXELS, Modality="CT", ImageType=["ORIGINAL", "PRIMARY", "AXIAL"])
    assert "modality CT" in refusal(slices)
    assert "modality MR" in refusal(write_dicom(tmp_path / "mr.dcm", PIXELS, Modality="MR"))
    assert "holds no image" in refusal(write_dicom(tmp_path / "none.dcm", None))
    good = write_xray(tmp_path / "x.dcm", PIXELS).read_bytes()
    for keep in (150, 400, len(good) - 7):
        (tmp_path / "cut.dcm").write_bytes(good[:keep])
        assert "cut.dcm" in refusal(tmp_path / "cut.dcm")
    (tmp_path / "note.dcm").write_text("hello " * 50)
    assert "note.dcm" in refusal(tmp_path / "note.dcm")
    constant = write_xray(tmp_path / "constant.dcm", np.full((20, 20), 7, np.uint16))
    assert "same value 7" in refusal(constant)
    assert capfd.readouterr() == ("", "")


def test_a_localizer_says_that_it_is_no_pinhole(tmp_path):
    path = write_xray(
        tmp_path / "scout.dcm",
        PIXELS,
        Modality="CT",
        ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"],
        ImagerPixelSpacing=None,
        PixelSpacing=[1.0, 1.0],
        DistanceSourceToPatient=500.0,
    )
    xray = read_xray(path)
    assert xray.camera.pixel_spacing_mm == pytest.approx((2.0, 2.0))
    assert "slot scan" in xray.metadata["warnings"][0]
