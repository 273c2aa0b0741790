"""What the unit tests share: the small phantom, and the same drawn examples in every run.

A failure is then the code's, and comes back. To look for new ones: ``pytest --hypothesis-profile=explore``.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings

from Testing.unit.ct_phantom import ct_phantom
from XRayRegistrationLib.bone.model import BoneModel, build_bone_model
from XRayRegistrationLib.images.volume import Volume
from XRayRegistrationLib.simulation.subject import Subject, make_subject

# no deadline: on a shared machine the time of one example says nothing
settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.register_profile("explore", deadline=None)
settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def ct() -> Volume:
    """The phantom, where a file has no CT of its own; not to be changed."""
    return ct_phantom()


@pytest.fixture(scope="session")
def model(ct: Volume) -> BoneModel:
    """The phantom's bone; not to be changed."""
    return build_bone_model(ct)


@pytest.fixture(scope="session")
def subject(ct: Volume, model: BoneModel) -> Subject:
    """The phantom as simulations take it; not to be changed."""
    return make_subject(ct, bone=model, name="phantom")


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """For small networks, over which torch's threads would spend their time waiting for one another."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
