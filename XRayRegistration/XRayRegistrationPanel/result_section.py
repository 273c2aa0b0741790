"""Step 5: whether to believe it, how exact it is, and ways to look at it."""

from __future__ import annotations

import numpy as np
import qt
import slicer.util
from XRayRegistrationScene import layout, poses
from XRayRegistrationScene.registration import is_of_another_ct, result_of

from XRayRegistrationLib.pictures.verdict import verdict_of

from .handlers import fill_combo, reported, sentence

OVERLAYS = (
    ("Blend of X-ray and DRR", "blend"),
    ("Checkerboard", "checkerboard"),
    ("Edges of the bone", "edges"),
    ("DRR only", "drr"),
    ("X-ray only", "xray"),
)
_ROW_PX, _HEADER_PX = 22, 24
_AXES = ("to the right", "downwards", "in depth")  # x, y, z of the camera
_TURNS = ("tipping up or down", "turning left or right", "in the image plane")  # about x, y, z


class ResultSection:
    """Args: panel, the module's widget."""

    def __init__(self, panel) -> None:
        self.panel, self.ui = panel, panel.ui
        self._from_source = False  # whether the 3D view was last brought to the X-ray's source
        ui = self.ui
        for table, columns in (
            (ui.precisionTable, ("Uncertainty from image noise (1 SD)", "mm", "Degrees")),
            (ui.landmarkTable, ("Name", "Column", "Row", "In view", "Miss px", "Miss mm")),
        ):
            table.setColumnCount(len(columns))
            table.setHorizontalHeaderLabels(list(columns))
            table.verticalHeader().setVisible(False)
            table.verticalHeader().setDefaultSectionSize(_ROW_PX)
            table.horizontalHeader().setFixedHeight(_HEADER_PX)
            table.horizontalHeader().setMinimumSectionSize(30)
            table.horizontalHeader().setSectionResizeMode(0, qt.QHeaderView.Stretch)
            for column in range(1, len(columns)):
                table.setColumnWidth(column, 58)
            table.setEditTriggers(qt.QAbstractItemView.NoEditTriggers)
        ui.overlayComboBox.connect("currentIndexChanged(int)", self.choose_overlay)
        ui.sourceViewButton.connect("clicked(bool)", self.view_from_source)
        ui.layoutButton.connect("clicked(bool)", self.arrange)
        ui.showStartButton.connect("clicked(bool)", self.show_start)
        ui.showResultButton.connect("clicked(bool)", self.show_result)
        ui.undoButton.connect("clicked(bool)", self.undo)
        ui.exportButton.connect("clicked(bool)", self.export)

    def refresh(self) -> None:
        """Show the result of the chosen X-ray."""
        ui, node = self.ui, self.panel.xrays.sound
        result = None if node is None else result_of(node)
        fill_combo(ui.overlayComboBox, list(OVERLAYS), self.panel.parameters.overlay)
        ui.opacitySlider.enabled = node is not None and self.panel.parameters.overlay == "blend"
        kept = {} if node is None else poses.remembered(node)
        idle = not self.panel.busy
        ui.showStartButton.enabled = ui.undoButton.enabled = idle and poses.START in kept
        ui.showResultButton.enabled = idle and poses.RESULT in kept
        for name in ("overlayComboBox", "sourceViewButton", "layoutButton"):
            getattr(ui, name).enabled = node is not None
        other = "" if result is None else self._other_ct(node, result)
        ui.exportButton.enabled = idle and result is not None and not other
        self._show_verdict(None if other else result, poses.RESULT in kept, other)
        self._show_precision(result if result is not None and result.ok and not other else None)
        self._show_landmarks(node if node is not None and poses.is_placed(node) else None)

    def arrived(self, node) -> None:
        """A registration has ended: show it, from the source, where eyes tell soonest whether it is right."""
        self.panel.show_chosen()
        self._from_source = True
        self.look()
        reveal(self.ui.resultSection)

    def look(self) -> None:
        """From the source again, if the 3D view was last brought there: it does not move with the X-ray."""
        if self._from_source and self.panel.xrays.sound is not None and layout.camera_node() is not None:
            self.panel.logic.viewFromSource(self.panel.xrays.sound)

    def choose_overlay(self, index) -> None:
        """Blend, checkerboard, edges, DRR or nothing over the X-ray."""
        mode = self.ui.overlayComboBox.itemData(index)
        if mode is not None:
            self.panel.parameters.overlay = mode

    @reported
    def view_from_source(self) -> None:
        """The 3D view from the X-ray's source, with the bone to be seen on its shadow."""
        if self.panel.parameters.segmentation is None and self.panel.parameters.ct is not None and not self.panel.busy:
            self.panel.ct.find_bone()
        self._from_source = True
        self.look()

    @reported
    def arrange(self) -> None:
        """X-ray with overlay, and 3D, side by side."""
        self._from_source = False
        self.panel.show_chosen(arrange=True)

    @reported
    def show_start(self) -> None:
        """Where the X-ray was before."""
        poses.go_to(self.panel.xrays.chosen, poses.START)
        self.look()
        self.panel.refresh_soon()

    @reported
    def show_result(self) -> None:
        """Where the registration found it to be."""
        poses.go_to(self.panel.xrays.chosen, poses.RESULT)
        self.look()
        self.panel.refresh_soon()

    @reported
    def undo(self) -> None:
        """Take the registration back."""
        self.panel.logic.undo(self.panel.xrays.chosen)
        self.look()
        self.panel.refresh_soon()

    @reported
    def export(self) -> None:
        """Ask for a folder and write the result there."""
        result = result_of(self.panel.xrays.chosen)
        if result is not None and not result.ok and not slicer.util.confirmOkCancelDisplay(
            "This pose FAILED the check and must not be used. Export it all the same, marked as failed?",
            windowTitle="X-ray registration",
        ):
            return
        folder = qt.QFileDialog.getExistingDirectory(self.panel.parent, "Export into a folder", "")
        if not folder:
            return
        parameters = self.panel.parameters
        with slicer.util.WaitCursor():
            files = self.panel.logic.exportResult(
                self.panel.xrays.chosen, folder, parameters.ct, parameters.segmentation, parameters.imageLandmarks
            )
        slicer.util.showStatusMessage(f"{len(files)} files written to {folder}", 5000)
        self.ui.progressLabel.text = f"{len(files)} files written to {folder}."

    def clear(self) -> None:
        """Show no verdict and offer no export."""
        self._show_verdict(None, False, "")
        self._show_precision(None)
        self.ui.exportButton.enabled = False

    def _other_ct(self, node, result) -> str:
        """The name of the CT that a result is of, where another one is chosen now."""
        ct = self.panel.parameters.ct
        return str(result.inputs.get("ct")) if ct is not None and is_of_another_ct(node, ct) else ""

    def _show_verdict(self, result, changed: bool, other_ct: str) -> None:
        label, text = self.ui.verdictLabel, self.ui.verdictTextLabel
        if result is None:
            words = "Not registered yet."
            if other_ct:
                words = f"Registered to '{other_ct}', which is not the CT that is chosen now: no verdict holds."
            elif changed:
                words = "Moved, or its camera changed, since it was registered: no verdict holds. Press Show result to go back, "
                words += "or Register again."
            label.text, label.styleSheet, text.text = words, "", ""
            return
        verdict = verdict_of(result)
        colour = "#1b5e20" if verdict.ok and not result.ambiguity else "#8a5a00" if verdict.ok else "#b71c1c"
        label.text = verdict.headline
        label.styleSheet = f"color: white; background: {colour}; font-weight: bold; padding: 6px; border-radius: 4px"
        sentences = [sentence(s) for s in verdict.sentences]
        if self.panel.parameters.segmentation is None:
            sentences.append("Press View from the source: the bone must lie on its shadow.")
        text.text = " ".join(sentences)

    def _show_precision(self, result) -> None:
        table = self.ui.precisionTable
        deviations = None if result is None else result.standard_deviations
        table.visible = deviations is not None
        if deviations is None:
            return
        degrees, millimetres = deviations
        rows = [(f"Place, {axis}", f"{mm:.2f}", "") for axis, mm in zip(_AXES, millimetres, strict=True)]
        rows += [(f"Turn, {turn}", "", f"{deg:.2f}") for turn, deg in zip(_TURNS, degrees, strict=True)]
        _fill(table, rows)

    def _show_landmarks(self, node) -> None:
        table, parameters = self.ui.landmarkTable, self.panel.parameters
        rows = []
        if node is not None and parameters.landmarks is not None:
            projected = self.panel.logic.projectLandmarks(parameters.landmarks, node, parameters.imageLandmarks)
            for point in projected:
                u, v = (f"{x:.1f}" if np.isfinite(x) else "" for x in point["pixel"])
                off = ["" if point[key] is None else f"{point[key]:.1f}" for key in ("off_px", "off_mm")]
                rows.append((point["name"], u, v, "yes" if point["in_view"] else "no", *off))
        table.visible = bool(rows)
        if rows:
            _fill(table, rows)


def reveal(widget) -> None:
    """Scroll the panel so that a widget is seen."""
    area = widget.parentWidget()
    while area is not None and not area.inherits("QScrollArea"):
        area = area.parentWidget()
    if area is not None:
        area.ensureWidgetVisible(widget)


def _fill(table, rows) -> None:
    table.setRowCount(len(rows))
    for i, row in enumerate(rows):
        for j, text in enumerate(row):
            table.setItem(i, j, qt.QTableWidgetItem(text))
    height = _HEADER_PX + _ROW_PX * min(len(rows), 6) + 4
    table.setMinimumHeight(height)
    table.setMaximumHeight(height)
