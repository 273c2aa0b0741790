"""Step 3: the method with what it needs, the start, and moving the X-ray by hand."""

from __future__ import annotations

import importlib.util

import slicer.util

from XRayRegistrationLib.methods import METHODS

from .handlers import fill_combo, reported

NAMES = {
    "diffdrr": "DiffDRR (no training)",
    "rayemb": "RayEmb",
    "scene_coordinates": "Scene coordinates",
    "prost": "ProST",
    "sopi": "SOPI",
    "fixed_landmarks": "Fixed landmarks",
}
STARTS = (
    ("Nothing is known", "none"),
    ("From the front (AP)", "ap"),
    ("From the back (PA)", "pa"),
    ("Lateral, from the left", "lat-left"),
    ("Lateral, from the right", "lat-right"),
    ("Where the X-ray stands now", "current"),
)
SOLVERS = (("Levenberg-Marquardt", "lm"), ("CMA-ES", "cma_es"), ("Adam", "adam"))
BACKENDS = (
    ("Automatic", "auto"),
    ("SciPy (always there)", "scipy"),
    ("numba (fast)", "numba"),
    ("PyTorch", "torch"),
    ("DiffDRR", "diffdrr"),
)
_PACKAGES = {"numba": ("numba",), "torch": ("torch",), "diffdrr": ("torch", "diffdrr")}


class MethodSection:
    """Args: panel, the module's widget."""

    def __init__(self, panel) -> None:
        self.panel, self.ui = panel, panel.ui
        ui = self.ui
        for combo, field in (
            (ui.methodComboBox, "method"),
            (ui.startComboBox, "start"),
            (ui.solverComboBox, "solver"),
            (ui.backendComboBox, "backend"),
        ):
            combo.connect("currentIndexChanged(int)", lambda index, c=combo, f=field: self._choose(c, f))
        ui.landmarkStartButton.connect("clicked(bool)", self.move_to_landmarks)
        ui.installNumbaButton.connect("clicked(bool)", self.install_numba)

    @property
    def missing(self) -> str:
        """What is still to be done, or ""."""
        parameters = self.panel.parameters
        method = METHODS[parameters.method]
        if method.status != "available":
            return f"{NAMES[parameters.method]} comes in a later version; choose {NAMES['diffdrr']}."
        packages = set(method.needs.packages) | set(_PACKAGES.get(parameters.backend, ()))
        if parameters.solver == "cma_es":
            packages.add("cma")
        absent = [name for name in sorted(packages) if importlib.util.find_spec(name) is None]
        if absent:
            return f"{' and '.join(absent)} must be installed for this choice; or choose another renderer or optimiser."
        return ""

    @property
    def options(self) -> dict:
        """The method's options that differ from its defaults."""
        parameters = self.panel.parameters
        options = {}
        if parameters.solver != "lm":
            options["solver"] = parameters.solver
        if parameters.paperMode:
            options["paper_mode"] = True
        return options

    def refresh(self) -> None:
        """Show what the parameters say."""
        parameters, ui = self.panel.parameters, self.ui
        methods = [
            (NAMES.get(name, name) + ("" if method.status == "available" else " (later version)"), name)
            for name, method in METHODS.items()
        ]
        fill_combo(ui.methodComboBox, methods, parameters.method)
        fill_combo(ui.startComboBox, list(STARTS), parameters.start)
        fill_combo(ui.solverComboBox, list(SOLVERS), parameters.solver)
        fill_combo(ui.backendComboBox, list(BACKENDS), parameters.backend)
        ui.methodNeedsLabel.text = self.missing or needs_words(METHODS[parameters.method])
        idle = not self.panel.busy
        for name in ("methodComboBox", "startComboBox", "solverComboBox", "backendComboBox", "paperModeCheckBox", "seedSpinBox"):
            getattr(ui, name).enabled = idle
        ready = self.panel.xrays.chosen is not None and None not in (parameters.landmarks, parameters.imageLandmarks)
        ui.landmarkStartButton.enabled = idle and ready
        ui.handlesCheckBox.enabled = ui.liveDrrCheckBox.enabled = self.panel.xrays.chosen is not None
        ui.installNumbaButton.visible = importlib.util.find_spec("numba") is None

    @reported
    def move_to_landmarks(self) -> None:
        """Solve for the pose from points on both, and start from there."""
        parameters = self.panel.parameters
        found = self.panel.logic.moveToLandmarks(self.panel.xrays.chosen, parameters.landmarks, parameters.imageLandmarks)
        parameters.start = "current"
        text = f"The points agree to {found.rms_px:.1f} px (RMS)."
        slicer.util.infoDisplay(" ".join(filter(None, (text, found.warning))), windowTitle="X-ray registration")

    @reported
    def install_numba(self) -> None:
        """Ask, then install what makes it fast."""
        self.panel.logic.install(("numba",), "makes registration about ten times faster")
        self.panel.refresh_soon()

    def _choose(self, combo, field) -> None:
        value = combo.itemData(combo.currentIndex)
        if value is not None:
            setattr(self.panel.parameters, field, value)


def needs_words(method) -> str:
    """What a method is, and what it cannot do without."""
    needs = method.needs
    wants = [
        word
        for asked, word in (
            (needs.training_per_patient, "training on this CT"),
            (needs.weights and not needs.training_per_patient, "trained weights"),
            (needs.labels, "labels or landmarks on the CT"),
            (needs.start_pose, "a rough start"),
        )
        if asked
    ]
    wants += [f"the package {name}" for name in needs.packages]
    needed = "Needs " + ", ".join(wants) + "." if wants else "Needs nothing: no training, no labels, no start, no install."
    return f"{method.summary[:1].upper()}{method.summary[1:]}. {needed} ({method.reference})"
