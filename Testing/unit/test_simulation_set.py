"""A simulated set on disk and back, and the command that writes it."""

from __future__ import annotations

import argparse
import json

import numpy as np
import pytest

from Testing.unit.ct_phantom import ct_phantom
from XRayRegistrationLib.commands import simulate
from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.files.atomic import OutputFolder
from XRayRegistrationLib.files.landmarks import write_landmarks
from XRayRegistrationLib.files.volume_file import write_volume
from XRayRegistrationLib.geometry.cios import cios_camera
from XRayRegistrationLib.geometry.rigid import transform_points
from XRayRegistrationLib.images.volume import Volume, fingerprint
from XRayRegistrationLib.simulation.appearance import develop
from XRayRegistrationLib.simulation.appearance_options import AppearanceOptions
from XRayRegistrationLib.simulation.shots import shoot
from XRayRegistrationLib.simulation.simulated_set import read_simulated_set, write_simulated_set
from XRayRegistrationLib.simulation.subject import make_subject

pytest.importorskip("torch", reason="the extra torch is not installed")

CAMERA = cios_camera(48)


@pytest.fixture(scope="module")
def subject(ct, model):
    labels = np.where(model.mask.values > 0, np.where(np.indices(ct.values.shape)[0] < 40, 1, 4), 0).astype(np.uint8)
    return make_subject(ct, bone=model, labels=Volume(labels, ct.ras_from_ijk), name="phantom")


def _write(folder, subject, count, **options):
    with OutputFolder(folder) as out:
        write_simulated_set(out, subject, CAMERA, count, hits=True, **options)
        return out.commit()


def test_a_set_comes_back(tmp_path, subject):
    _write(tmp_path / "set", subject, 4, options=AppearanceOptions.realistic(), seed=7)
    back = read_simulated_set(tmp_path / "set")
    np.testing.assert_array_equal(back.camera.K, CAMERA.K)
    assert (back.poses, back.seed, back.subject) == ("scr", 7, "phantom")
    assert back.ct_fingerprint == fingerprint(subject.ct)
    shots = shoot(subject, CAMERA, back.camera_from_ct)
    depths = [transform_points(p, subject.centre_ct)[2] for p in back.camera_from_ct]
    images, masks = develop(shots.path_mm, back.appearances, CAMERA, object_depth_mm=depths)
    for one, image in zip(back.images, images.numpy(), strict=True):
        np.testing.assert_allclose(one, image, atol=np.ptp(image) / 60000)
    np.testing.assert_array_equal(back.masks, masks.numpy())
    np.testing.assert_array_equal(back.hits_ct, shots.hits_ct.numpy())
    np.testing.assert_array_equal(back.hits_camera.K, shots.hits_camera.K)
    expected = CAMERA.project(transform_points(back.camera_from_ct[2], subject.landmarks_ct))
    np.testing.assert_allclose(back.landmarks_px[2], expected, atol=1e-4)
    np.testing.assert_array_equal(back.in_view[2], CAMERA.in_view(expected))
    assert back.label_values == (1, 4)
    assert back.label_shadows.shape == (4, 2, 24, 24)
    # the labels cover the bone: but for rays that graze it, those that meet a label have hits, and the other way
    met, hit = back.label_shadows.any(axis=1), ~np.isnan(back.hits_ct[:, 0, 0])
    assert (met != hit).mean() < 0.05 < hit.mean()


def test_the_same_seed_gives_the_same_files_and_a_longer_set_begins_with_the_shorter(tmp_path, subject):
    first, again = (_write(tmp_path / n, subject, 3, seed=1) for n in "ab")
    for one, other in zip(first, again, strict=True):
        assert one.read_bytes() == other.read_bytes(), one.name
    _write(tmp_path / "c", subject, 18, seed=1)
    other_seed = _write(tmp_path / "d", subject, 3, seed=2)
    name = "image_00002.png"
    assert (tmp_path / "c" / name).read_bytes() == (tmp_path / "a" / name).read_bytes()
    assert other_seed[1].read_bytes() != first[1].read_bytes()


def test_a_damaged_set_is_refused(tmp_path, subject):
    folder = tmp_path / "set"
    _write(folder, subject, 2)
    np.save(folder / "hits.npy", np.zeros((2, 2)))
    with pytest.raises(InputError, match=r"hits.npy has the shape \(2, 2\)"):
        read_simulated_set(folder)
    (folder / "hits.npy").unlink()
    with pytest.raises(InputError, match=r"hits.npy cannot be read"):
        read_simulated_set(folder)
    (folder / "set.json").write_text(json.dumps({"format": "else"}))
    with pytest.raises(InputError, match="no simulated set of version 1"):
        read_simulated_set(folder)
    with pytest.raises(InputError, match="number of images is 0"):
        _write(tmp_path / "none", subject, 0)
    assert not (tmp_path / "none").exists()


def _args(**other):
    values = {
        "ct": "", "out": "", "count": 2, "poses": "sopi", "appearance": "clean", "size": 32, "camera": None, "bone": "auto",
        "landmarks": None, "labels": None, "seed": 0, "hits": False, "progress": "none", "quiet": True,
    }  # fmt: skip
    return argparse.Namespace(**{**values, **other})


def test_the_command(tmp_path, capsys):
    ct = ct_phantom(5.0)
    write_volume(tmp_path / "ct.nii.gz", ct)
    write_landmarks(tmp_path / "l.mrk.json", [[0.0, 0.0, 30.0], [10.0, 0.0, 0.0]], ["a", "b"])
    args = {"ct": str(tmp_path / "ct.nii.gz"), "out": str(tmp_path / "set"), "landmarks": str(tmp_path / "l.mrk.json")}
    assert simulate.run(_args(**args, count=3, hits=True, quiet=False)) == 0
    assert "3 X-rays of ct.nii.gz" in capsys.readouterr().out
    back = read_simulated_set(tmp_path / "set")
    assert back.landmark_names == ("a", "b")
    assert back.images.shape == (3, 32, 32)
    # a smaller set in the same folder leaves nothing of the larger one
    assert simulate.run(_args(**args, count=1)) == 0
    left = sorted(p.name for p in (tmp_path / "set").iterdir())
    assert left == ["camera.json", "image_00000.png", "masks.npy", "set.json"]
    assert read_simulated_set(tmp_path / "set").hits_ct is None


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"poses": "scrr"}, "did you mean 'scr'"),
        ({"appearance": "real"}, "--appearance 'real' is unknown"),
        ({"count": 0}, "--count 0 is out of range"),
        ({"size": 4}, "size 4 is out of range"),
        ({"camera": "x.json"}, "--size cannot be given with --camera"),
        ({"labels": "none.nii"}, "--labels none.nii: the label map does not exist"),
        ({"ct": "none.nii"}, "--ct none.nii: the CT does not exist"),
    ],
)
def test_the_command_refuses(tmp_path, wrong, said):
    (tmp_path / "ct.nii").write_bytes(b"")
    args = _args(**{"ct": str(tmp_path / "ct.nii"), "out": str(tmp_path / "out"), **wrong})
    with pytest.raises(InputError, match=said):
        simulate.run(args)
    assert not (tmp_path / "out").exists()
