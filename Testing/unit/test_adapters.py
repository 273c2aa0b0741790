"""Frames of other programs: each against that program, or against its formula on a point phantom."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import SimpleITK as sitk
from bone_phantoms import shared_data
from scipy.spatial.transform import Rotation

from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.geometry import adapters
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.rigid import from_rotation_translation, inverse, transform_points

RNG = np.random.default_rng(7)
CENTRE = np.array([35.0, -120.0, 410.0])
POINTS = CENTRE + RNG.uniform(-80, 80, (30, 3))  # ct, RAS mm
POSE = from_rotation_translation(Rotation.from_euler("xyz", [100, 20, -40], degrees=True).as_matrix(), [0, 0, 0])
POSE[:3, 3] = [15, -10, 720] - POSE[:3, :3] @ CENTRE
CAMERA = Camera.from_spacing(240, 180, (1.2, 1.5), 1020.0, (115.0, 95.5))


# --- LPS and ITK


def test_lps_by_hand():
    np.testing.assert_array_equal(adapters.points_ras_from_lps([[1, 2, 3]]), [[-1, -2, 3]])
    affine = np.array([[2, 0, 0, 10], [0, 3, 0, 20], [0, 0, 4, 30], [0, 0, 0, 1.0]])
    np.testing.assert_array_equal(
        adapters.affine_ras_from_lps(affine), [[-2, 0, 0, -10], [0, -3, 0, -20], [0, 0, 4, 30], [0, 0, 0, 1]]
    )


def test_lps_poses_see_the_same_point_phantom():
    lps = adapters.points_ras_from_lps(POINTS)
    camera_from_lps = adapters.pose_ras_from_lps(POSE)
    np.testing.assert_allclose(transform_points(camera_from_lps, lps), transform_points(POSE, POINTS), atol=1e-10)
    np.testing.assert_allclose(adapters.pose_ras_from_lps(camera_from_lps), POSE, atol=0)
    moved = transform_points(adapters.transform_ras_from_lps(POSE), lps)
    np.testing.assert_allclose(adapters.points_ras_from_lps(moved), transform_points(POSE, POINTS), atol=1e-10)


@pytest.mark.parametrize("suffix", ["tfm", "h5"])
def test_itk_transforms_through_files(tmp_path, suffix):
    ct_from_camera = inverse(POSE)
    parameters, fixed = adapters.itk_from_matrix(ct_from_camera)
    transform = sitk.AffineTransform(3)
    transform.SetFixedParameters(fixed.tolist())
    transform.SetParameters(parameters.tolist())
    sitk.WriteTransform(transform, str(tmp_path / f"pose.{suffix}"))
    read = sitk.ReadTransform(str(tmp_path / f"pose.{suffix}"))
    # ITK maps points of the parent (the CT) to the node (the camera), both in LPS
    for ct in POINTS:
        camera_lps = np.array(read.TransformPoint(adapters.points_ras_from_lps(ct).tolist()))
        np.testing.assert_allclose(adapters.points_ras_from_lps(camera_lps), transform_points(POSE, ct), atol=1e-8)
    back = adapters.matrix_from_itk(read.GetParameters(), read.GetFixedParameters())
    np.testing.assert_allclose(back, ct_from_camera, atol=1e-9)


def test_itk_centre_of_rotation_counts():
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(Rotation.from_euler("z", 90, degrees=True).as_matrix().ravel().tolist())
    transform.SetCenter((10.0, 20.0, 30.0))
    transform.SetTranslation((1.0, 2.0, 3.0))
    node = adapters.matrix_from_itk(transform.GetParameters(), transform.GetFixedParameters())
    for lps in POINTS:
        mapped = transform_points(inverse(node), adapters.points_ras_from_lps(lps))
        np.testing.assert_allclose(adapters.points_ras_from_lps(mapped), transform.TransformPoint(lps.tolist()))
    with pytest.raises(InputError, match="6 parameters"):
        adapters.matrix_from_itk(np.zeros(6))


# --- DiffDRR


def diffdrr_module(orientation, reverse_x_axis, **detector):
    for package in ("diffdrr", "torch", "torchio"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed; this compares with DiffDRR itself")
    import torch
    import torchio
    from diffdrr.data import read
    from diffdrr.drr import DRR

    affine = np.diag([-2.0, 2.0, 3.0, 1.0])
    affine[:3, 3] = CENTRE - affine[:3, :3] @ [19.5, 24.5, 14.5]
    data = torch.zeros(1, 40, 50, 30)
    data[0, 1, 2, 3] = 500.0  # not constant: DiffDRR scales densities by their range
    subject = read(torchio.ScalarImage(tensor=data, affine=affine), orientation=orientation)
    np.testing.assert_allclose(subject.volume.get_center(), 0, atol=1e-4)  # it moved CENTRE to 0
    return DRR(subject, reverse_x_axis=reverse_x_axis, **detector)


@pytest.mark.parametrize(("orientation", "reverse_x_axis"), [("AP", True), ("PA", False), (None, True)])
@pytest.mark.parametrize("size", [(180, 240), (181, 241)], ids=["even", "odd"])
def test_diffdrr_projects_the_point_phantom_to_our_pixels(orientation, reverse_x_axis, size):
    height, width = size
    detector = dict(sdd=1020.0, height=height, width=width, delx=1.2, dely=1.5, x0=-6.0, y0=8.5)
    drr = diffdrr_module(orientation, reverse_x_axis, **detector)
    import torch
    from diffdrr.pose import RigidTransform

    camera = adapters.camera_from_diffdrr(**detector, reverse_x_axis=reverse_x_axis)
    pose = adapters.diffdrr_from_camera_from_ct(POSE, CENTRE, orientation, reverse_x_axis)
    theirs = drr.perspective_projection(
        RigidTransform(torch.tensor(pose, dtype=torch.float32)[None]),
        torch.tensor(POINTS - CENTRE, dtype=torch.float32)[None],
    )[0]
    ours = camera.project(transform_points(POSE, POINTS))
    np.testing.assert_allclose(adapters.pixels_from_diffdrr(theirs.numpy()), ours, atol=2e-3)  # float32
    np.testing.assert_allclose(
        adapters.camera_from_ct_from_diffdrr(pose, CENTRE, orientation, reverse_x_axis), POSE, atol=1e-9
    )


@pytest.mark.parametrize(("orientation", "reverse_x_axis"), [("AP", True), ("PA", False), (None, True)])
def test_diffdrr_casts_its_rays_through_our_pixels(orientation, reverse_x_axis):
    arguments = adapters.diffdrr_from_camera(CAMERA, reverse_x_axis)
    drr = diffdrr_module(orientation, **arguments)
    import torch
    from diffdrr.pose import RigidTransform

    pose = adapters.diffdrr_from_camera_from_ct(POSE, CENTRE, orientation, reverse_x_axis)
    source, target = drr.detector(RigidTransform(torch.tensor(pose, dtype=torch.float32)[None]), None)
    np.testing.assert_allclose(source[0, 0].numpy() + CENTRE, inverse(POSE)[:3, 3], atol=1e-3)
    detector_plane = transform_points(inverse(POSE), 1020.0 * CAMERA.ray_directions())
    found = target[0].numpy().reshape(CAMERA.height, CAMERA.width, 3) + CENTRE
    np.testing.assert_allclose(found, detector_plane, atol=2e-3)
    del arguments["reverse_x_axis"]
    again = adapters.camera_from_diffdrr(**arguments, reverse_x_axis=reverse_x_axis)
    np.testing.assert_allclose(again.K, CAMERA.K, rtol=1e-12)


def test_diffdrr_poses_that_mirror_are_refused():
    pose = adapters.diffdrr_from_camera_from_ct(POSE, CENTRE)
    with pytest.raises(InputError, match=r"mirrored images.*reverse_x_axis=True"):
        adapters.camera_from_ct_from_diffdrr(pose, CENTRE, "AP", reverse_x_axis=False)
    with pytest.raises(InputError, match="allowed are 'AP', 'PA' and None"):
        adapters.camera_from_ct_from_diffdrr(pose, CENTRE, "LAT")  # type: ignore[arg-type]


# --- DeepFluoro and xReg

F = 1020.0 / 0.194
XREG_K = np.array([[-F, 0, 760.0], [0, -F, 771.5], [0, 0, 1]])
XREG_EXT = np.array(
    [[0.001417, 5.8e-6, 1, -157.58], [-1, -0.004076, 0.001417, -2.68], [0.004076, -1, 0, -631.78], [0, 0, 0, 1]]
)
W, H = 1536, 1500


def xreg_scene() -> tuple[np.ndarray, np.ndarray]:
    """A pose as stored, and the pixels (column, row) of the phantom by xReg's own formula."""
    in_world = Rotation.from_euler("zyx", [70, 10, -25], degrees=True).as_matrix()
    ext = XREG_EXT.copy()
    u, _, vt = np.linalg.svd(ext[:3, :3])
    ext[:3, :3] = u @ vt
    # the phantom's centre 650 mm in front of the source: z = -650 in this frame
    at = transform_points(inverse(ext), [12.0, -8.0, -650.0])
    world_from_lps = from_rotation_translation(in_world, at - in_world @ adapters.points_ras_from_lps(CENTRE))
    x = transform_points(ext @ world_from_lps, adapters.points_ras_from_lps(POINTS))
    assert (x[:, 2] < 0).all()
    h = x @ XREG_K.T
    return inverse(world_from_lps), h[:, :2] / h[:, 2:]


@pytest.mark.parametrize("turned", [False, True])
def test_deepfluoro_pixels_are_ours_once_the_image_is_mirrored(turned):
    cam_to_pelvis, stored_pixels = xreg_scene()
    camera = adapters.camera_from_deepfluoro(XREG_K, W, H, 0.194, turned=turned)
    pose = adapters.camera_from_ct_from_deepfluoro(XREG_EXT, cam_to_pelvis, turned=turned)
    x = transform_points(pose, POINTS)
    assert (x[:, 2] > 500).all()
    expected = adapters.pixels_from_deepfluoro(stored_pixels, W, H, turned=turned)
    np.testing.assert_allclose(camera.project(x), expected, atol=1e-6)
    assert camera.source_detector_distance_mm == pytest.approx(1020.0)
    # the image goes the way its pixels go
    image = np.zeros((H, W))
    column, row = 300, 1200
    image[row, column] = 1
    v, u = np.argwhere(adapters.image_from_deepfluoro(image, turned=turned))[0]
    np.testing.assert_array_equal(adapters.pixels_from_deepfluoro([column, row], W, H, turned=turned), [u, v])


@pytest.mark.parametrize("turned", [False, True])
def test_deepfluoro_poses_come_back(turned):
    stored = adapters.deepfluoro_from_camera_from_ct(POSE, XREG_EXT, turned=turned)
    np.testing.assert_allclose(
        adapters.camera_from_ct_from_deepfluoro(XREG_EXT, stored, turned=turned), POSE, atol=1e-8
    )


def test_deepfluoro_with_positive_focal_lengths_is_refused():
    with pytest.raises(InputError, match="needs no adapter"):
        adapters.camera_from_deepfluoro(np.abs(XREG_K), W, H)


# --- MayaCam

MAYACAM = """image size
240,180

camera matrix
850,0,115
0,680,95.5
0,0,1

rotation
0,-1,0
1,0,0
0,0,1

translation
5
-6
900
"""


def test_mayacam_by_hand():
    camera = adapters.camera_from_mayacam(MAYACAM)
    assert (camera.width, camera.height) == (240, 180)
    assert camera.source_detector_distance_mm is None
    # x_camera = (-20 + 5, 10 - 6, 30 + 900)
    pixel = camera.project(transform_points(camera.camera_from_rig, [10, 20, 30]))
    np.testing.assert_allclose(pixel, [850 * -15 / 930 + 115, 680 * 4 / 930 + 95.5])


def test_mayacam_round_trip_on_the_point_phantom():
    rigged = Camera(CAMERA.width, CAMERA.height, CAMERA.K, None, POSE)
    back = adapters.camera_from_mayacam(adapters.mayacam_from_camera(rigged))
    np.testing.assert_allclose(
        back.project(transform_points(back.camera_from_rig, POINTS)),
        CAMERA.project(transform_points(POSE, POINTS)), atol=1e-9,
    )  # fmt: skip
    alone = adapters.camera_from_mayacam(adapters.mayacam_from_camera(CAMERA))
    np.testing.assert_array_equal(alone.camera_from_rig, np.eye(4))


@pytest.mark.parametrize("change", [("\n", "\r\n"), (",", ", "), (",", " "), ("image size", "Image Size")])
def test_mayacam_spelling(change):
    np.testing.assert_array_equal(
        adapters.camera_from_mayacam(MAYACAM.replace(*change)).K, adapters.camera_from_mayacam(MAYACAM).K
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("rotation", "rotations"), "block 'camera matrix'|lacks the block 'rotation'"),
        (("900", ""), "'translation' has 2 numbers instead of 3"),
        (("0,-1,0", "0,-2,0"), "rotation and translation scales"),
        (("240,180", "240.5,180"), "whole numbers"),
        (("850", "eight"), "has the line 'eight,0,115'"),
        (("image size", "frame 1"), "starts with 'frame 1'"),
        (("0,680,95.5", "0,nan,95.5"), "camera matrix"),
    ],
)
def test_mayacam_faults_are_named_in_one_line(change, message):
    with pytest.raises(InputError, match=message) as error:
        adapters.camera_from_mayacam(MAYACAM.replace(*change, 1))
    assert "\n" not in str(error.value)


@pytest.mark.skipif(shared_data() is None, reason="../shared/data (or XRAYREG_DATA) is absent")
def test_the_wrists_mayacam_sees_the_radius_where_its_fit_says():
    wrist = shared_data() / "wrist"
    rig_from_ct = np.eye(4)
    rig_from_ct[:3, :3] = Rotation.from_rotvec([-0.3131, -1.8637, -2.2406]).as_matrix()
    middle = (np.array([68, 86, 128]) - 1) / 2 * [0.39625, 0.39625, 0.625]
    rig_from_ct[:3, 3] = np.array([107.96, 158.24, 75.16]) - rig_from_ct[:3, :3] @ middle
    for name in ("cam1", "cam2"):
        camera = adapters.camera_from_mayacam((wrist / f"{name}_mayacam.txt").read_text())
        pixel = camera.project(transform_points(camera.camera_from_rig @ rig_from_ct, middle))
        assert camera.in_view(pixel)
        image = sitk.GetArrayFromImage(sitk.ReadImage(str(wrist / f"{name}_frame0002.tif"))).astype(float)
        u, v = np.rint(pixel).astype(int)
        around = image[v - 40 : v + 41, u - 40 : u + 41].mean()
        assert around < np.median(image[image > 0])  # bone is dark in these raw radiographs
