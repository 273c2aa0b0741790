"""The one result object of a registration: value, status with a sentence, statistics, trace."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.rigid import check_rigid, inverse

Array = NDArray[np.float64]

FORMAT = "xrayregistration-result"
FORMAT_VERSION = 1
STATUSES = ("success", "failure")


@dataclass(frozen=True)
class View:
    """One X-ray of a result, without its pixels.

    Attributes:
        camera: its intrinsics, in pixels of the X-ray as it was given.
        source: path or description of the X-ray.
        provenance: where each camera value and decision came from, as in :class:`images.xray.XRay`.
    """

    camera: Camera
    source: str = ""
    provenance: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """What a registration found, and whether to believe it.

    The pose is returned for a failure too; ``status`` and ``message`` then say that it must not
    be used. Everything with one entry a view is in the order of ``views``.

    Attributes:
        status: ``"success"`` or ``"failure"``: the verdict of the verification.
        message: the verdict as one sentence for a clinician.
        method: name of the method that proposed the pose.
        views: cameras and origins of the X-rays, at least one.
        camera_from_ct_views: (n_views, 4, 4) refined poses; ct is the CT's RAS in mm.
        proposed_camera_from_ct_views: (n_views, 4, 4) poses before the refinement.
        probability: that the pose is right, 0..1, calibrated on simulated cases.
        covariance: (6, 6) of a left increment (wx, wy, wz [rad], tx, ty, tz [mm]) about
            ``centre_ct`` in camera axes of the first view; None where it could not be formed.
        centre_ct: (3,) ct mm, the bone's centroid, about which increments turn.
        similarity: named similarities at the refined pose.
        ambiguity: a sentence about another pose that explains the image nearly as well, or "".
        rig_from_ct: 4x4, for a calibrated rig of several X-rays, else None.
        landmarks_ct: (n, 3) ct mm; landmark_names: n names.
        landmarks_px_views: (n_views, n, 2) pixels (u, v), NaN behind the source.
        timings_s, inputs, versions, seed: for the record.
        trace: one dictionary a candidate: what was tried, and how it scored.

    Raises:
        InputError: a value contradicts the description above.
    """

    status: str
    message: str
    method: str
    views: tuple[View, ...]
    camera_from_ct_views: Array
    proposed_camera_from_ct_views: Array
    probability: float
    covariance: Array | None = None
    centre_ct: Array | None = None
    similarity: dict[str, float] = field(default_factory=dict)
    ambiguity: str = ""
    rig_from_ct: Array | None = None
    landmarks_ct: Array = field(default_factory=lambda: np.zeros((0, 3)))
    landmark_names: tuple[str, ...] = ()
    landmarks_px_views: Array | None = None
    timings_s: dict[str, float] = field(default_factory=dict)
    inputs: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    seed: int = 0
    trace: tuple[dict[str, Any], ...] = ()

    def __post_init__(self) -> None:
        def put(name: str, value: Any) -> None:
            object.__setattr__(self, name, value)

        if self.status not in STATUSES:
            raise InputError(f"result status is {self.status!r}; allowed is 'success' or 'failure'")
        if not 0.0 <= self.probability <= 1.0:
            raise InputError(f"result probability is {self.probability!r}; allowed is a number from 0 to 1")
        if not self.views:
            raise InputError("the result has no views; allowed is at least one X-ray")
        n_views = len(self.views)
        put("views", tuple(self.views))
        put("probability", float(self.probability))
        for name in ("camera_from_ct_views", "proposed_camera_from_ct_views"):
            poses = list(getattr(self, name))
            if len(poses) != n_views:
                raise InputError(f"result {name} has {len(poses)} poses for {n_views} views; allowed is one a view")
            put(name, np.stack([check_rigid(p, f"{name}[{i}]") for i, p in enumerate(poses)]))
        if self.rig_from_ct is not None:
            put("rig_from_ct", check_rigid(self.rig_from_ct, "rig_from_ct"))
        if self.covariance is not None:
            put("covariance", _array(self.covariance, (6, 6), "covariance"))
        if self.centre_ct is not None:
            put("centre_ct", _array(self.centre_ct, (3,), "centre_ct"))
        points = np.asarray(self.landmarks_ct, dtype=np.float64).reshape(-1, 3)
        put("landmarks_ct", points)
        names = tuple(self.landmark_names) or tuple(str(i + 1) for i in range(len(points)))
        if len(names) != len(points):
            raise InputError(f"result has {len(names)} landmark names for {len(points)} landmarks")
        put("landmark_names", names)
        if self.landmarks_px_views is None:
            pixels = [
                v.camera.project(points @ m[:3, :3].T + m[:3, 3])
                for v, m in zip(self.views, self.camera_from_ct_views, strict=True)
            ]
            put("landmarks_px_views", np.stack(pixels))
        else:
            put("landmarks_px_views", _array(self.landmarks_px_views, (n_views, len(points), 2), "landmarks_px_views"))
        put("trace", tuple(self.trace))

    @property
    def ok(self) -> bool:
        """Whether the verification believes the pose."""
        return self.status == "success"

    @property
    def camera_from_ct(self) -> Array:
        """4x4 refined pose of the first view."""
        return self.camera_from_ct_views[0]

    @property
    def proposed_camera_from_ct(self) -> Array:
        """4x4 pose of the first view before the refinement."""
        return self.proposed_camera_from_ct_views[0]

    @property
    def ct_from_camera(self) -> Array:
        """4x4 inverse of :attr:`camera_from_ct`: what the Slicer scene carries."""
        return inverse(self.camera_from_ct)

    @property
    def landmarks_px(self) -> Array:
        """(n, 2) landmarks in pixels (u, v) of the first view, NaN behind the source."""
        assert self.landmarks_px_views is not None
        return self.landmarks_px_views[0]

    @property
    def standard_deviations(self) -> tuple[Array, Array] | None:
        """((3,) degrees, (3,) mm) about and along the camera's x, y, z axes; the last is the depth."""
        if self.covariance is None:
            return None
        sigma = np.sqrt(np.clip(np.diag(self.covariance), 0.0, None))
        return np.degrees(sigma[:3]), sigma[3:]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; the first view's pose and landmarks at the top, every view under ``views``.

        Matrices are row-major lists; NaN (a landmark behind the source) becomes None.
        """
        assert self.landmarks_px_views is not None
        deviations = self.standard_deviations
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "status": self.status,
            "message": self.message,
            "method": self.method,
            "camera_from_ct": plain(self.camera_from_ct),
            "proposed_camera_from_ct": plain(self.proposed_camera_from_ct),
            "rig_from_ct": plain(self.rig_from_ct),
            "probability": self.probability,
            "ambiguity": self.ambiguity,
            "covariance": plain(self.covariance),
            "standard_deviations": None
            if deviations is None
            else {"rotation_deg": plain(deviations[0]), "translation_mm": plain(deviations[1])},
            "centre_ct": plain(self.centre_ct),
            "similarity": plain(self.similarity),
            "landmark_names": list(self.landmark_names),
            "landmarks_ct": plain(self.landmarks_ct),
            "landmarks_px": plain(self.landmarks_px),
            "views": [
                {
                    "source": view.source,
                    "camera": camera_to_dict(view.camera),
                    "provenance": dict(view.provenance),
                    "camera_from_ct": plain(self.camera_from_ct_views[i]),
                    "proposed_camera_from_ct": plain(self.proposed_camera_from_ct_views[i]),
                    "landmarks_px": plain(self.landmarks_px_views[i]),
                    "landmarks_in_view": plain(view.camera.in_view(self.landmarks_px_views[i])),
                }
                for i, view in enumerate(self.views)
            ],
            "timings_s": plain(self.timings_s),
            "inputs": plain(self.inputs),
            "versions": dict(self.versions),
            "seed": int(self.seed),
            "trace": plain(list(self.trace)),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Result:
        """The inverse of :meth:`to_dict`.

        Raises:
            InputError: not such a dictionary, or values that contradict one another.
        """
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise InputError(f'this is no result of xrayreg (no "format": "{FORMAT}"); give a result.json')
        if data.get("format_version") != FORMAT_VERSION:
            raise InputError(
                f"the result has format_version {data.get('format_version')!r}; this version reads {FORMAT_VERSION}, "
                "update xrayregistration or register again"
            )
        try:
            views = data["views"]
            return cls(
                status=data["status"],
                message=data["message"],
                method=data["method"],
                views=tuple(View(camera_from_dict(v["camera"]), v["source"], dict(v["provenance"])) for v in views),
                camera_from_ct_views=[v["camera_from_ct"] for v in views],  # type: ignore[arg-type]
                proposed_camera_from_ct_views=[v["proposed_camera_from_ct"] for v in views],  # type: ignore[arg-type]
                probability=data["probability"],
                covariance=data["covariance"],
                centre_ct=data["centre_ct"],
                similarity=dict(data["similarity"]),
                ambiguity=data["ambiguity"],
                rig_from_ct=data["rig_from_ct"],
                landmarks_ct=np.array(data["landmarks_ct"], dtype=np.float64).reshape(-1, 3),
                landmark_names=tuple(data["landmark_names"]),
                landmarks_px_views=np.array([v["landmarks_px"] for v in views], dtype=np.float64).reshape(
                    len(views), -1, 2
                ),
                timings_s=dict(data["timings_s"]),
                inputs=dict(data["inputs"]),
                versions=dict(data["versions"]),
                seed=data["seed"],
                trace=tuple(data["trace"]),
            )
        except InputError:
            raise
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise InputError(
                f"the result is incomplete or damaged ({type(error).__name__}: {error}); give a result.json of xrayreg"
            ) from error


def percentage(probability: float) -> str:
    """A probability for people: never 100 % or 0 %, which no test can promise."""
    if probability > 0.99:
        return "over 99 %"
    if probability < 0.01:
        return "under 1 %"
    return f"{100 * probability:.0f} %"


def camera_to_dict(camera: Camera) -> dict[str, Any]:
    """The camera as in ``camera.json``: width, height, K and what else is known."""
    out: dict[str, Any] = {"width": camera.width, "height": camera.height, "K": plain(camera.K)}
    if camera.source_detector_distance_mm is not None:
        out["source_detector_distance_mm"] = float(camera.source_detector_distance_mm)
    if camera.camera_from_rig is not None:
        out["camera_from_rig"] = plain(camera.camera_from_rig)
    return out


def camera_from_dict(data: dict[str, Any]) -> Camera:
    """The inverse of :func:`camera_to_dict`."""
    return Camera(
        data["width"],
        data["height"],
        data["K"],
        data.get("source_detector_distance_mm"),
        data.get("camera_from_rig"),
    )


def plain(value: Any) -> Any:
    """Arrays, NumPy scalars and paths as JSON values, recursively; what is not finite becomes None."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if value is None or isinstance(value, (str, int)):
        return value
    return str(value)


def _array(value: ArrayLike, shape: tuple[int, ...], name: str) -> Array:
    out = np.array(value, dtype=np.float64)
    if out.shape != shape:
        raise InputError(f"result {name} has the shape {out.shape}; allowed is {shape}")
    return out
