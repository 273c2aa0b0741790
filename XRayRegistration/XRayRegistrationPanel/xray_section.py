"""Step 2: the X-rays, and the camera of the one that is chosen."""

from __future__ import annotations

import re

import qt
import slicer
import slicer.util
from XRayRegistrationScene import xray_nodes
from XRayRegistrationScene.registration import result_of

from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.result import percentage

from .handlers import asked_number, fill_combo, reported, sentence, silent

COLUMNS = ("Register", "X-ray", "Camera", "Pose")
USE = "XRayRegistration.Use"  # attribute of an X-ray that is not to be registered: "0"
FILES = "X-rays (*.dcm *.dicom *.ima *.png *.tif *.tiff *.jpg *.nrrd *.mha *.mhd *.nii *.nii.gz);;All files (*)"
_POLARITIES = (("Automatic", "auto"), ("Bone is bright", "bone_bright"), ("Bone is dark", "bone_dark"))
_ROW_PX, _HEADER_PX = 22, 28
_MISSING, _ASSUMED = "#c62828", "#b26a00"


class XRaySection:
    """Args: panel, the module's widget."""

    def __init__(self, panel) -> None:
        self.panel, self.ui = panel, panel.ui
        self._shown = ""  # id of the chosen X-ray
        ui = self.ui
        table = ui.xrayTable
        table.setColumnCount(len(COLUMNS))
        table.setHorizontalHeaderLabels(list(COLUMNS))
        table.verticalHeader().setVisible(False)
        table.verticalHeader().setDefaultSectionSize(_ROW_PX)
        table.horizontalHeader().setSectionResizeMode(2, qt.QHeaderView.Stretch)
        table.setSelectionBehavior(qt.QAbstractItemView.SelectRows)
        table.setSelectionMode(qt.QAbstractItemView.SingleSelection)
        table.setEditTriggers(qt.QAbstractItemView.NoEditTriggers)
        table.connect("itemChanged(QTableWidgetItem*)", self._ticked)
        table.connect("itemSelectionChanged()", self._selected)
        ui.importButton.connect("clicked(bool)", self.import_files)
        ui.useImageButton.connect("clicked(bool)", self.use_image)
        ui.imageSelector.connect("currentNodeChanged(vtkMRMLNode*)", lambda node: self.refresh())
        ui.carmNoteLabel.visible = False
        ui.mirrorButton.connect("clicked(bool)", self.mirror)
        ui.removeXRayButton.connect("clicked(bool)", self.remove)
        ui.cameraFileButton.connect("clicked(bool)", self.load_camera)
        ui.carmComboBox.connect("activated(int)", self.choose_carm)
        for name in ("sdd", "columnSpacing", "rowSpacing"):
            getattr(ui, f"{name}SpinBox").setSpecialValueText(" ")  # not known; digits go in anywhere, into words they would not
        for name in ("sdd", "columnSpacing", "rowSpacing", "columnPoint", "rowPoint"):
            getattr(ui, f"{name}SpinBox").connect("editingFinished()", getattr(self, f"_edit_{_VALUE[name]}"))
        ui.polarityComboBox.connect("currentIndexChanged(int)", lambda index: self._edit_preparation())
        ui.maskCheckBox.connect("toggled(bool)", lambda checked: self._edit_preparation())
        fill_combo(ui.polarityComboBox, list(_POLARITIES), "auto")
        names = [("Choose a C-arm...", "")] + [(name, name) for name in panel.logic.cArms()]
        fill_combo(ui.carmComboBox, names, "")

    @property
    def chosen(self):
        """The X-ray that is shown and edited; None where there is none."""
        node = slicer.mrmlScene.GetNodeByID(self._shown) if self._shown else None
        nodes = xray_nodes.xray_nodes()
        return node if node in nodes else (nodes[0] if nodes else None)

    @property
    def sound(self):
        """The chosen X-ray; None too where its geometry or a transform above it cannot be used."""
        return None if self.chosen is None or problem_of(self.chosen) else self.chosen

    @property
    def used(self) -> list:
        """The X-rays that are ticked."""
        return [node for node in xray_nodes.xray_nodes() if node.GetAttribute(USE) != "0"]

    @property
    def missing(self) -> str:
        """What is still to be done, or ""."""
        if not xray_nodes.xray_nodes():
            return "Import an X-ray, or use an image of the scene."
        if not self.used:
            return "Tick an X-ray."
        for node in self.used:
            if problem_of(node):
                return problem_of(node)
            if xray_nodes.missing_of(node):
                return f"Type in {_names(xray_nodes.missing_of(node))} of '{node.GetName()}', or choose its C-arm."
        if self.panel.parameters.rig:
            if len(self.used) < 2:
                return "Tick at least two X-rays of the rig, or untick that they share one pose."
            alone = [node.GetName() for node in self.used if xray_nodes.camera_of(node).camera_from_rig is None]
            if alone:
                return f"Load the rig's camera file for '{alone[0]}': one that holds camera_from_rig, such as a MayaCam text."
        return ""

    def choose(self, node) -> None:
        """Show and edit this X-ray."""
        self._shown = node.GetID()
        self.panel.refresh_soon()

    def refresh(self) -> None:
        """Show what the scene holds."""
        ui, nodes, chosen = self.ui, xray_nodes.xray_nodes(), self.chosen
        self._shown = "" if chosen is None else chosen.GetID()
        idle = not self.panel.busy
        with silent(ui.xrayTable):
            self._fill_table(nodes, chosen)
        ui.importButton.enabled = idle
        ui.useImageButton.enabled = idle and ui.imageSelector.currentNode() is not None
        ui.rigCheckBox.enabled = idle and len(self.used) > 1
        ui.xrayBox.enabled = idle and chosen is not None
        if chosen is not None:
            self._fill_camera(chosen)
        ui.xrayStatusLabel.text = self.missing or f"✓ {len(self.used)} of {len(nodes)} X-rays ticked."

    @reported
    def import_files(self) -> None:
        """Ask for files and read them; what cannot be read is said, and the others are there."""
        failures, imported = [], None
        for path in qt.QFileDialog.getOpenFileNames(self.panel.parent, "Import X-rays", "", FILES) or ():
            try:
                imported = self._import(path) or imported
            except InputError as error:
                failures.append(sentence(str(error)))
        if imported is not None:
            self.choose(imported)
            self.panel.show_chosen()
        if failures:
            raise InputError("\n".join(failures))

    def _import(self, path):
        """One file; of a run, the frame that the user names, or None."""
        node = self.panel.logic.importXRay(path)
        told = xray_nodes.metadata_of(node)
        frames, taken = told.get("number_of_frames", 1), told.get("frame", 0)
        if frames > 1:
            asked = f"{node.GetName()} has {frames} frames. Which one is to be registered (1 to {frames})?"
            number = asked_number(self.panel.parent, asked, taken + 1, frames)
            if number != taken + 1:
                self.panel.logic.removeXRay(node)
                node = None if number is None else self.panel.logic.importXRay(path, frame=number - 1)
        return node

    @reported
    def use_image(self) -> None:
        """Make an X-ray of the chosen image."""
        image, frame = self.ui.imageSelector.currentNode(), None
        slices = image.GetImageData().GetDimensions()[2] if image is not None and image.GetImageData() else 1
        if slices > 1:
            asked = f"'{image.GetName()}' has {slices} slices. An X-ray is one image; a CT belongs in step 1."
            if not slicer.util.confirmOkCancelDisplay(f"{asked} Take one of them as X-ray?", windowTitle="X-ray registration"):
                return
            which = f"Which one is to be registered (1 to {slices})?"
            number = asked_number(self.panel.parent, which, 1 + slices // 2, slices)
            if number is None:
                return
            frame = number - 1
        self.choose(self.panel.logic.useAsXRay(image, frame=frame))
        self.panel.show_chosen()

    @reported
    def mirror(self) -> None:
        """Left to right, or back."""
        if self.chosen is not None:
            self.panel.logic.mirrorXRay(self.chosen)
            self.panel.refresh_soon()

    @reported
    def remove(self) -> None:
        """Take the chosen X-ray out of the scene."""
        if self.chosen is not None and slicer.util.confirmOkCancelDisplay(
            f"Remove the X-ray '{self.chosen.GetName()}' and its pose?", windowTitle="X-ray registration"
        ):
            self.panel.logic.removeXRay(self.chosen)
            self.panel.refresh_soon()

    @reported
    def load_camera(self) -> None:
        """Ask for a camera file of the chosen X-ray."""
        path = qt.QFileDialog.getOpenFileName(self.panel.parent, "Camera", "", "Cameras (*.json *.txt);;All files (*)")
        if path:
            self.panel.logic.setCamera(self.chosen, cameraFile=path)
            self.panel.refresh_soon()

    def choose_carm(self, index) -> None:
        """Fill in a known C-arm's camera."""
        self._choose_carm()

    @reported
    def _choose_carm(self) -> None:
        name = self.ui.carmComboBox.itemData(self.ui.carmComboBox.currentIndex)
        with silent(self.ui.carmComboBox):
            self.ui.carmComboBox.setCurrentIndex(0)  # it fills in values; they are what counts from now on
        if name and self.chosen is not None:
            self.panel.logic.setCamera(self.chosen, cArm=name)
            self.panel.refresh_soon()

    def _fill_table(self, nodes, chosen) -> None:
        table = self.ui.xrayTable
        table.setRowCount(len(nodes))
        table.setFixedHeight(_HEADER_PX + _ROW_PX * min(max(len(nodes), 2), 5))
        for row, node in enumerate(nodes):
            tick = qt.QTableWidgetItem()
            tick.setFlags(qt.Qt.ItemIsUserCheckable | qt.Qt.ItemIsEnabled | qt.Qt.ItemIsSelectable)
            tick.setCheckState(qt.Qt.Checked if node.GetAttribute(USE) != "0" else qt.Qt.Unchecked)
            tick.setData(qt.Qt.UserRole, node.GetID())
            table.setItem(row, 0, tick)
            told = xray_nodes.provenance_of(node)
            origins = [told[name] for name in _BOXES if name in told]  # the centre as principal point is no news
            state = next((word for word in ("missing", "assumed") if any(o.startswith(word) for o in origins)), "known")
            camera = qt.QTableWidgetItem({"missing": "values missing", "assumed": "known, some assumed"}.get(state, "known"))
            if state != "known":
                camera.setForeground(qt.QBrush(qt.QColor(_MISSING if state == "missing" else _ASSUMED)))
            camera.setToolTip("\n".join(_CAMERA_VALUES.get(n, n) + ": " + o for n, o in xray_nodes.provenance_of(node).items()))
            table.setItem(row, 1, qt.QTableWidgetItem(node.GetName()))
            table.setItem(row, 2, camera)
            table.setItem(row, 3, qt.QTableWidgetItem(_pose_words(node)))
            if node is chosen:
                table.selectRow(row)
        table.resizeColumnToContents(0)
        table.resizeColumnToContents(1)
        table.resizeColumnToContents(3)

    def _fill_camera(self, node) -> None:
        ui = self.ui
        try:
            camera = xray_nodes.camera_of(node)
        except InputError as error:
            ui.sddOriginLabel.text = str(error)
            return
        provenance = xray_nodes.provenance_of(node)
        missing = xray_nodes.missing_of(node)
        sdd = camera.source_detector_distance_mm or xray_nodes.NOMINAL_SDD_MM
        values = {
            ui.sddSpinBox: sdd,
            ui.columnSpacingSpinBox: sdd / camera.K[0, 0],
            ui.rowSpacingSpinBox: sdd / camera.K[1, 1],
            ui.columnPointSpinBox: camera.K[0, 2],
            ui.rowPointSpinBox: camera.K[1, 2],
        }
        for name, boxes in _BOXES.items():
            if name in missing:
                values.update((getattr(ui, box), getattr(ui, box).minimum) for box in boxes)
        with silent(*values):
            for box, value in values.items():
                if not box.hasFocus() or abs(box.value - value) > 0.5 * 10**-box.decimals:
                    box.value = float(value)
        for label, name in (
            (ui.sddOriginLabel, "source_detector_distance_mm"),
            (ui.spacingOriginLabel, "pixel_spacing_mm"),
            (ui.pointOriginLabel, "principal_point_px"),
        ):
            origin = provenance.get(name) or provenance.get("camera") or "given"
            word = origin.split(":")[0]
            colour = {"missing": _MISSING, "assumed": _ASSUMED}.get(word, "")
            label.text = "not known" if name in missing else word
            label.toolTip = origin
            label.styleSheet = f"color: {colour}; font-weight: bold" if colour else ""
        preset = re.match(r"assumed: preset '(.+)'$", provenance.get("source_detector_distance_mm", ""))
        note = self.panel.logic.cArmNote(preset[1]) if preset else ""
        ui.carmNoteLabel.text = f"{preset[1]}: {note}" if note else ""
        ui.carmNoteLabel.visible = bool(note)
        polarity, mask = xray_nodes.preparation_of(node)
        fill_combo(ui.polarityComboBox, list(_POLARITIES), polarity)
        with silent(ui.maskCheckBox):
            ui.maskCheckBox.checked = mask
        ui.xrayBox.title = f"Camera of '{node.GetName()}'"

    def _ticked(self, item) -> None:
        node = slicer.mrmlScene.GetNodeByID(item.data(qt.Qt.UserRole) or "")
        if node is not None:
            node.SetAttribute(USE, None if item.checkState() == qt.Qt.Checked else "0")
            self.panel.refresh_soon()

    def _selected(self) -> None:
        row = self.ui.xrayTable.currentRow()
        item = self.ui.xrayTable.item(row, 0)
        if item is not None and item.data(qt.Qt.UserRole) != self._shown:
            self._shown = item.data(qt.Qt.UserRole)
            self.panel.refresh_soon()

    @reported
    def _edit_sdd(self) -> None:
        if self.ui.sddSpinBox.value > self.ui.sddSpinBox.minimum:
            self._edit(sourceDetectorDistance=self.ui.sddSpinBox.value)

    @reported
    def _edit_spacing(self) -> None:
        spacing = [box.value for box in (self.ui.columnSpacingSpinBox, self.ui.rowSpacingSpinBox)]
        known = [value for value in spacing if value > self.ui.columnSpacingSpinBox.minimum]
        if known:  # typed into one of two: pixels are square
            self._edit(pixelSpacing=tuple(spacing) if len(known) == 2 else (known[0], known[0]))

    @reported
    def _edit_point(self) -> None:
        self._edit(principalPoint=(self.ui.columnPointSpinBox.value, self.ui.rowPointSpinBox.value))

    @reported
    def _edit_preparation(self) -> None:
        if self.chosen is not None:
            polarity = self.ui.polarityComboBox.itemData(self.ui.polarityComboBox.currentIndex)
            xray_nodes.set_preparation(self.chosen, polarity, self.ui.maskCheckBox.checked)

    def _edit(self, **values) -> None:
        if self.chosen is None:
            return
        ((name, value),) = values.items()
        camera = xray_nodes.camera_of(self.chosen)
        sdd = camera.source_detector_distance_mm or xray_nodes.NOMINAL_SDD_MM
        key, before, digits = {
            "sourceDetectorDistance": ("source_detector_distance_mm", (sdd,), 0.005),
            "pixelSpacing": ("pixel_spacing_mm", (sdd / camera.K[0, 0], sdd / camera.K[1, 1]), 0.00005),
            "principalPoint": ("principal_point_px", (camera.K[0, 2], camera.K[1, 2]), 0.005),
        }[name]
        typed = value if isinstance(value, tuple) else (value,)
        same = all(abs(a - b) <= digits for a, b in zip(typed, before, strict=True))
        unknown = name == "sourceDetectorDistance" and camera.source_detector_distance_mm is None
        if same and not unknown and key not in xray_nodes.missing_of(self.chosen):
            return  # left again without a change: it keeps its digits and its origin
        self.panel.logic.setCamera(self.chosen, **values)
        self.panel.refresh_soon()


_BOXES = {
    "source_detector_distance_mm": ("sddSpinBox",),
    "pixel_spacing_mm": ("columnSpacingSpinBox", "rowSpacingSpinBox"),
}
_VALUE = {"sdd": "sdd", "columnSpacing": "spacing", "rowSpacing": "spacing", "columnPoint": "point", "rowPoint": "point"}
_CAMERA_VALUES = {
    "source_detector_distance_mm": "Source to detector",
    "pixel_spacing_mm": "Pixel size",
    "principal_point_px": "Principal point",
    "camera": "Camera",
}


def problem_of(node) -> str:
    """Why an X-ray's geometry or place cannot be used, or ""."""
    try:
        xray_nodes.camera_of(node)
        xray_nodes.camera_from_world_of(node)
    except InputError as error:
        return sentence(str(error))
    return ""


def _names(values) -> str:
    words = {"source_detector_distance_mm": "source to detector", "pixel_spacing_mm": "pixel size"}
    return " and ".join(words.get(v, v) for v in values)


def _pose_words(node) -> str:
    if problem_of(node):
        return "cannot be used"
    result = result_of(node)
    if result is None:
        return "not registered"
    return f"accepted, {percentage(result.probability)}" if result.ok else "FAILED"
