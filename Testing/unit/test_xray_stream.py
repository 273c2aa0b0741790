"""X-rays made while a network learns: each batch is the same whenever it is asked for, so that training can resume."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from XRayRegistrationLib.bone.model import BoneModel
from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.rigid import transform_points
from XRayRegistrationLib.images.volume import Volume
from XRayRegistrationLib.simulation.appearance_options import AppearanceOptions
from XRayRegistrationLib.simulation.subject import Subject, make_subject
from XRayRegistrationLib.training.xray_stream import StreamOptions, XRayBatch, XRayStream

CAMERA = Camera.from_spacing(32, 32, 9.2, 1020.0)
OPTIONS = StreamOptions(CAMERA, "scr", AppearanceOptions.domain_randomisation(), appearances=2, apart=3)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def subject(ct: Volume, model: BoneModel) -> Subject:
    return make_subject(ct, bone=model, name="phantom", voxel_mm=4.0)


def same(a: XRayBatch, b: XRayBatch) -> bool:
    return (
        torch.equal(a.image, b.image)
        and torch.equal(torch.nan_to_num(a.hits_ct), torch.nan_to_num(b.hits_ct))
        and np.array_equal(a.camera_from_ct, b.camera_from_ct)
    )


def test_a_batch_is_the_same_whatever_was_asked_for_before(subject: Subject) -> None:
    first = XRayStream([subject], OPTIONS, 4, seed=5)
    in_order = [first.batch(n, CPU) for n in range(9)]
    later = XRayStream([subject], OPTIONS, 4, seed=5)
    assert same(later.batch(8, CPU), in_order[8])
    assert same(later.batch(2, CPU), in_order[2])  # its geometry is long forgotten
    assert not same(in_order[7], in_order[8])
    assert not same(XRayStream([subject], OPTIONS, 4, seed=6).batch(2, CPU), in_order[2])


def test_a_geometry_comes_again_in_another_look(subject: Subject) -> None:
    stream = XRayStream([subject], OPTIONS, 4, seed=0)
    now, again = stream.batch(3, CPU), stream.batch(6, CPU)
    np.testing.assert_array_equal(now.camera_from_ct[:2], again.camera_from_ct[2:])
    assert not torch.equal(now.image[:2], again.image[2:])


def test_hits_lie_on_their_rays_and_images_are_standardised(subject: Subject) -> None:
    batch = XRayStream([subject], OPTIONS, 4, seed=1).batch(0, CPU)
    assert batch.image.shape == (4, 1, 32, 32)
    assert batch.hits_ct.shape == (4, 2, 3, 16, 16)
    small = CAMERA.resized(16, 16)
    for n in range(4):
        for points in batch.hits_ct[n].double().numpy():
            rows, columns = np.nonzero(np.isfinite(points[0]))
            pixels = small.project(transform_points(batch.camera_from_ct[n], points[:, rows, columns].T))
            np.testing.assert_allclose(pixels, np.stack([columns, rows], axis=-1), atol=1e-3)
        assert float(batch.image[n].square().mean()) <= 1.0 + 1e-4


def test_several_cts_take_turns(subject: Subject) -> None:
    other = replace(subject, name="other")
    stream = XRayStream([subject, other], OPTIONS, 4, seed=2)
    seen = np.concatenate([stream.batch(n, CPU).subject for n in range(8)])
    assert set(seen) == {0, 1}


def test_poses_of_an_unknown_name_are_refused(subject: Subject) -> None:
    with pytest.raises(InputError, match="standing"):
        XRayStream([subject], replace(OPTIONS, poses="standing"), 4, seed=0)


def test_other_processes_make_the_same_batches_in_the_same_order(subject: Subject) -> None:
    from itertools import islice

    from XRayRegistrationLib.methods import get_method
    from XRayRegistrationLib.training.options import TrainingOptions
    from XRayRegistrationLib.training.workers import batches, worker_count

    method = get_method("scene_coordinates")
    training = TrainingOptions(iterations=1, batch_size=4)
    task = method.task([subject], (), method.options(), training, CAMERA.resized(64, 64))
    alone = list(islice(batches(task, 1, 2, 0, CPU), 4))
    ahead = list(islice(batches(task, 1, 2, 2, CPU), 4))
    assert all(same(a, b) for a, b in zip(alone, ahead, strict=True))
    assert worker_count(None, CPU) == 0
    assert worker_count(3, CPU) == 3
    assert worker_count(None, torch.device("cuda")) in (1, 2, 4, 8, 16)
