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
    "dflnet": "DFLNet (baseline)",
    "posenet": "PoseNet (baseline)",
    "deepim": "DeepIM (baseline)",
    "dmw": "DMW (baseline)",
}
STARTS = (
    ("Unknown (all views are searched)", "none"),
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
        ui.installButton.connect("clicked(bool)", self.install)

    @property
    def missing(self) -> str:
        """What is still to be done, or ""."""
        parameters = self.panel.parameters
        for value, known in (
            (parameters.method, METHODS),
            (parameters.backend, [name for _, name in BACKENDS]),
            (parameters.solver, [name for _, name in SOLVERS]),
            (parameters.start, [name for _, name in STARTS]),
        ):
            if value not in known:
                return f"This version has no '{value}'; choose another."
        if self.absent:
            return f"This choice needs {' and '.join(self.absent)}: press Install (under Advanced), or choose another."
        return ""

    @property
    def absent(self) -> list:
        """Packages that the present choice needs and that are not installed."""
        return [name for name in sorted(self.wanted) if importlib.util.find_spec(name) is None]

    @property
    def wanted(self) -> set:
        """Packages that the present choice needs."""
        parameters = self.panel.parameters
        method = METHODS.get(parameters.method)
        wanted = set(_PACKAGES.get(parameters.backend, ())) | set(() if method is None else method.needs.packages)
        if self._has_solvers and parameters.solver == "cma_es":
            wanted.add("cma")
        return wanted

    @property
    def _has_solvers(self) -> bool:
        """Whether the method lets its optimiser be chosen; the choice is kept for those that do."""
        method = METHODS.get(self.panel.parameters.method)
        return method is not None and method.has_option("solver")

    @property
    def options(self) -> dict:
        """The method's options that differ from its defaults."""
        parameters = self.panel.parameters
        options = {}
        if self._has_solvers and parameters.solver != "lm":
            options["solver"] = parameters.solver
        if parameters.paperMode:
            options["paper_mode"] = True
        return options

    def refresh(self) -> None:
        """Show what the parameters say."""
        parameters, ui = self.panel.parameters, self.ui
        methods = [(NAMES.get(name, name), name) for name in METHODS]
        fill_combo(ui.methodComboBox, methods, parameters.method)
        fill_combo(ui.startComboBox, list(STARTS), parameters.start)
        fill_combo(ui.solverComboBox, list(SOLVERS), parameters.solver)
        fill_combo(ui.backendComboBox, list(BACKENDS), parameters.backend)
        ui.methodNeedsLabel.text = self.missing or needs_words(METHODS[parameters.method])
        idle = not self.panel.busy
        for name in ("methodComboBox", "startComboBox", "backendComboBox", "paperModeCheckBox", "seedSpinBox"):
            getattr(ui, name).enabled = idle
        ui.solverComboBox.enabled = idle and self._has_solvers
        ready = self.panel.xrays.chosen is not None and None not in (parameters.landmarks, parameters.imageLandmarks)
        ui.landmarkStartButton.enabled = idle and ready
        ui.handlesCheckBox.enabled = ui.liveDrrCheckBox.enabled = self.panel.xrays.chosen is not None
        ui.landmarkStartButton.toolTip = (
            "Move the X-ray to where the points on it and on the CT agree best. Takes at least four points of the same names."
            if ready
            else "Choose a point list on the CT (step 1, Landmarks) and one on the X-ray, at the left."
        )
        slow = importlib.util.find_spec("numba") is None
        ui.installButton.visible = bool(self.absent) or slow
        ui.installButton.text = f"Install {' and '.join(self.absent or ['numba'])}"
        if slow and not self.missing and parameters.backend in ("auto", "scipy"):
            ui.methodNeedsLabel.text += " Takes a minute or two here; about ten times less with numba (Advanced, Install)."

    @reported
    def move_to_landmarks(self) -> None:
        """Solve for the pose from points on both, and start from there."""
        parameters = self.panel.parameters
        found = self.panel.logic.moveToLandmarks(self.panel.xrays.chosen, parameters.landmarks, parameters.imageLandmarks)
        parameters.start = "current"
        self.panel.results.look()
        text = f"The points agree to {found.rms_px:.1f} px (RMS). Now press Register."
        slicer.util.infoDisplay(" ".join(filter(None, (text, found.warning))), windowTitle="X-ray registration")

    @reported
    def install(self) -> None:
        """Ask, then install what is missing, or what makes it fast."""
        why = "is needed for what was chosen" if self.absent else "makes registration about ten times faster"
        self.panel.logic.install(tuple(self.absent) or ("numba",), why)
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
    if needs.packages:
        wants.append(f"the package{'s' if needs.packages[1:] else ''} {' and '.join(needs.packages)}")
    needed = "Needs " + ", ".join(wants) + "." if wants else "Needs nothing else."
    return f"{method.summary[:1].upper()}{method.summary[1:]}. {needed} ({method.reference})"
