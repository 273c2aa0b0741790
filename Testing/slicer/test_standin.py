"""The stand-in itself: a small module on it does what it would do in Slicer, and breaks where it would break."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import slicer
import slicer.util

ROOT = Path(__file__).resolve().parents[2]
MODULE = """
from __future__ import annotations
import enum
import pathlib
from typing import Annotated, Optional

import ctk
import qt
import slicer
import vtk
from slicer import vtkMRMLScalarVolumeNode
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.parameterNodeWrapper import Choice, Default, Minimum, WithinRange, parameterNodeWrapper, parameterPack
from slicer.ScriptedLoadableModule import *
from slicer.util import VTKObservationMixin


class Sample(ScriptedLoadableModule):
    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("Sample")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Registration")]
        slicer.app.connect("startupCompleted()", registerSampleData)


def registerSampleData():
    import SampleData
    SampleData.SampleDataLogic.registerCustomSampleDataSource(category="Sample", sampleName="wrist", uris="https://x/y")


class View(enum.Enum):
    AP = "ap"
    LATERAL = "lat"

    def label(self):
        return {"ap": "Front", "lat": "Side"}[self.value]


@parameterPack
class Camera:
    sdd: Annotated[float, Minimum(1)] = 1000.0
    names: list[str]


@parameterNodeWrapper
class SampleParameterNode:
    ct: vtkMRMLScalarVolumeNode
    xrays: list[vtkMRMLScalarVolumeNode]
    threshold: Annotated[float, WithinRange(-100, 500)] = 100
    count: Annotated[int, Minimum(1)] = 3
    invert: bool = False
    view: View = View.LATERAL
    name: str = "hello"
    kind: Annotated[str, Choice(["a", "b"])] = "b"
    folder: pathlib.Path
    limit: Optional[float]
    camera: Camera
    shifts: dict[str, float]


class SampleWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = None
        self.log = []

    def setup(self):
        ScriptedLoadableModuleWidget.setup(self)
        uiWidget = slicer.util.loadUI(self.resourcePath("UI/Sample.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = SampleLogic()
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onClose)
        self.ui.applyButton.connect("clicked(bool)", self.onApply)
        self._parameterNode = self._tag = None

    def enter(self):
        self._parameterNode = self.logic.getParameterNode()
        self._tag = self._parameterNode.connectGui(self.ui)
        self.addObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self._check)
        self._check()

    def exit(self):
        if self._parameterNode is not None:
            self._parameterNode.disconnectGui(self._tag)
            self.removeObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self._check)
            self._parameterNode = None

    def cleanup(self):
        self.removeObservers()

    def onClose(self, caller, event):
        self.exit()

    def _check(self, caller=None, event=None):
        self.ui.applyButton.enabled = self._parameterNode.ct is not None
        self.ui.applyButton.toolTip = "" if self._parameterNode.ct else "Choose a CT"

    def onApply(self):
        with slicer.util.tryWithErrorDisplay("It failed.", waitCursor=True):
            self.log.append(self.logic.process(self._parameterNode))


class SampleLogic(ScriptedLoadableModuleLogic):
    def getParameterNode(self):
        return SampleParameterNode(super().getParameterNode())

    def process(self, parameters):
        if parameters.threshold > 400:
            raise ValueError("too bright")
        return parameters.ct.GetName(), parameters.threshold
"""

UI = """<?xml version="1.0" encoding="UTF-8"?>
<ui version="4.0"><class>Sample</class>
 <widget class="qMRMLWidget" name="Sample"><layout class="QVBoxLayout" name="verticalLayout">
  <item><widget class="ctkCollapsibleButton" name="inputs"><property name="text"><string>Inputs</string></property>
   <layout class="QFormLayout" name="formLayout">
    <item row="0" column="0"><widget class="QLabel" name="label">
      <property name="text"><string>CT:</string></property></widget></item>
    <item row="0" column="1"><widget class="qMRMLNodeComboBox" name="ctSelector">
      <property name="nodeTypes"><stringlist notr="true"><string>vtkMRMLScalarVolumeNode</string></stringlist></property>
      <property name="showChildNodeTypes"><bool>false</bool></property>
      <property name="addEnabled"><bool>false</bool></property>
      <property name="noneEnabled"><bool>true</bool></property>
      <property name="SlicerParameterName" stdset="0"><string>ct</string></property></widget></item>
    <item row="1" column="1"><widget class="ctkSliderWidget" name="threshold">
      <property name="decimals"><number>1</number></property>
      <property name="SlicerParameterName" stdset="0"><string>threshold</string></property></widget></item>
    <item row="2" column="1"><widget class="QCheckBox" name="invert">
      <property name="SlicerParameterName" stdset="0"><string>invert</string></property></widget></item>
    <item row="3" column="1"><widget class="QComboBox" name="view">
      <property name="SlicerParameterName" stdset="0"><string>view</string></property></widget></item>
    <item row="4" column="1"><widget class="QLineEdit" name="text">
      <property name="SlicerParameterName" stdset="0"><string>name</string></property></widget></item>
    <item row="5" column="1"><widget class="QSpinBox" name="count">
      <property name="SlicerParameterName" stdset="0"><string>count</string></property></widget></item>
    <item row="6" column="1"><widget class="ctkDoubleSpinBox" name="sdd">
      <property name="maximum"><double>5000</double></property>
      <property name="SlicerParameterName" stdset="0"><string>camera.sdd</string></property></widget></item>
    <item row="7" column="1"><widget class="ctkPathLineEdit" name="folder">
      <property name="SlicerParameterName" stdset="0"><string>folder</string></property></widget></item>
   </layout></widget></item>
  <item><widget class="QPushButton" name="applyButton"><property name="text"><string>Apply</string></property></widget></item>
 </layout></widget>
 <connections>
  <connection><sender>Sample</sender><signal>mrmlSceneChanged(vtkMRMLScene*)</signal>
   <receiver>ctSelector</receiver><slot>setMRMLScene(vtkMRMLScene*)</slot></connection>
  <connection><sender>invert</sender><signal>toggled(bool)</signal><receiver>text</receiver><slot>setDisabled(bool)</slot></connection>
 </connections></ui>
"""


@pytest.fixture
def sample(gui, tmp_path, monkeypatch):
    """The path of a small module in Slicer's own shape."""
    (tmp_path / "Resources" / "UI").mkdir(parents=True)
    (tmp_path / "Resources" / "UI" / "Sample.ui").write_text(UI)
    path = tmp_path / "Sample.py"
    path.write_text(MODULE)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield path
    sys.modules.pop("Sample", None)


@pytest.fixture
def loaded(gui, sample):
    return gui.load_module(sample)


def _volume(name="ct", class_name="vtkMRMLScalarVolumeNode"):
    node = slicer.mrmlScene.AddNewNodeByClass(class_name, name)
    slicer.util.updateVolumeFromArray(node, np.random.default_rng(0).integers(0, 200, (12, 40, 40)).astype(np.int16))
    return node


def test_properties_are_attributes_and_enums_are_ints(gui) -> None:
    import qt

    button = qt.QPushButton("one")
    button.text, button.checkable, button.objectName = "two", True, "b"
    assert (button.text, button.checked, button.enabled, button.name) == ("two", False, True, "b")
    bar = qt.QProgressBar()
    bar.maximum, bar.value = 7, 3
    assert (bar.value, bar.maximum) == (3, 7)
    combo = qt.QComboBox()
    combo.addItems(["a", "b"])
    combo.currentText = "b"
    assert (combo.currentIndex, combo.count) == (1, 2)
    assert qt.Qt.Checked == 2
    assert isinstance(qt.QMessageBox(), qt.QDialog)
    assert not isinstance(qt.QWidget(), qt.QDialog)
    with pytest.raises(AttributeError, match="read-only"):
        combo.count = 3


def test_connect_takes_pythonqts_signatures_and_no_others(gui) -> None:
    import qt

    got = []
    box = qt.QCheckBox()
    box.connect("toggled(bool)", got.append)
    box.connect("clicked()", lambda: got.append("clicked"))
    box.toggled.connect(lambda on: got.append(("signal", on)))
    box.click()
    assert got == [True, ("signal", True), "clicked"]
    assert box.disconnect("toggled(bool)", got.append)
    assert not box.disconnect("toggled(bool)", got.append)
    del got[:]
    box.click()
    assert got == [("signal", False), "clicked"]
    with pytest.raises(ValueError, match=r"no signal 'toggld\(bool\)'; similar are: toggled\(bool\)"):
        box.connect("toggld(bool)", print)
    menu = qt.QMenu()
    menu.addAction("made in C++").connect("triggered()", lambda: got.append("action"))
    menu.actions()[0].trigger()
    assert got[-1] == "action"


def test_a_module_is_set_up_clicked_and_closed(gui, loaded) -> None:
    module, widget, logic = loaded
    assert module.parent.title == "Sample"
    assert logic is widget.logic
    assert slicer.util.getModuleWidget("Sample") is widget
    assert slicer.util.modulePath("Sample").endswith("Sample.py")
    gui.fire("startupCompleted()")
    assert slicer.modules.sampleDataSources["Sample"][0].sampleName == "wrist"
    ui = widget.ui
    assert (ui.applyButton.enabled, ui.applyButton.toolTip) == (False, "Choose a CT")
    ct = _volume()
    ui.ctSelector.choose("ct")
    assert widget._parameterNode.ct is ct
    assert ui.applyButton.enabled
    ui.threshold.value = 250
    ui.applyButton.click()
    assert widget.log == [("ct", 250.0)]
    slicer.mrmlScene.RemoveNode(ct)
    assert ui.ctSelector.currentNode() is None
    assert widget._parameterNode.ct is None
    assert not ui.applyButton.enabled


def test_an_error_in_a_slot_is_shown(gui, loaded) -> None:
    widget = loaded.widget
    _volume()
    widget.ui.ctSelector.choose("ct")
    widget.ui.threshold.value = 450
    caught = []
    hook, sys.excepthook = sys.excepthook, lambda *what: caught.append(what[1])
    widget.ui.applyButton.click()
    sys.excepthook = hook
    assert [str(error) for error in caught] == ["too bright"]
    assert gui.messages[-1] == ("error", "It failed.\n\ntoo bright")


def test_widgets_and_parameters_follow_each_other(gui, loaded) -> None:
    ui, parameters = loaded.widget.ui, loaded.widget._parameterNode
    assert (ui.threshold.minimum, ui.threshold.maximum, ui.threshold.value) == (-100, 500, 100)
    assert [ui.view.itemText(i) for i in range(ui.view.count)] == ["Front", "Side"]
    assert (ui.view.currentText, ui.text.text, ui.count.value, ui.sdd.value) == ("Side", "hello", 3, 1000)
    parameters.threshold, parameters.name, parameters.camera.sdd = 7, "new", 900
    parameters.view = type(parameters.view).AP
    assert (ui.threshold.value, ui.text.text, ui.sdd.value, ui.view.currentText) == (7, "new", 900, "Front")
    ui.view.currentIndex, ui.count.value, ui.invert.checked = 1, 9, True
    ui.text.setText("typed")
    ui.folder.currentPath = "/tmp"
    ui.sdd.value = 1200
    assert (parameters.view.value, parameters.count, parameters.invert) == ("lat", 9, True)
    assert (parameters.name, str(parameters.folder), parameters.camera.sdd) == ("typed", "/tmp", 1200)
    assert not ui.text.enabled  # the .ui file's own connection
    loaded.widget.exit()
    ui.count.value = 12
    assert parameters.count == 9


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("threshold", 501, "within range"), ("count", 0, "at least 1"), ("kind", "c", "one of"), ("name", None, "None"),
        ("name", 3, "type"), ("xrays", ["no node"], "type"),
    ],
)  # fmt: skip
def test_parameters_refuse_what_they_may_not_be(loaded, name, value, says) -> None:
    parameters = loaded.widget._parameterNode
    before = getattr(parameters, name)
    with pytest.raises(ValueError, match=says):
        setattr(parameters, name, value)
    assert getattr(parameters, name) == before
    with pytest.raises(AttributeError, match="no parameter 'treshold'"):
        parameters.treshold = 3


def test_parameters_survive_a_saved_scene(gui, loaded, tmp_path) -> None:
    parameters = loaded.widget._parameterNode
    assert (parameters.limit, parameters.shifts, parameters.xrays) == (None, {}, [])
    parameters.ct = _volume("ct")
    parameters.xrays = [_volume("a"), _volume("b")]
    parameters.xrays.append(_volume("c"))
    parameters.limit, parameters.threshold, parameters.view = 0.1, 12.5, type(parameters.view).AP
    parameters.camera.sdd = 800
    parameters.camera.names.append("front")
    parameters.shifts["x"] = 2.5
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear(0)
    gui.processEvents()
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    found = loaded.logic.getParameterNode()
    assert found.ct.GetName() == "ct"
    assert [node.GetName() for node in found.xrays] == ["a", "b", "c"]
    assert (found.limit, found.threshold, found.view.value) == (0.1, 12.5, "ap")
    assert (found.camera.sdd, found.camera.names, found.shifts) == (800, ["front"], {"x": 2.5})
    found.reset()
    assert (found.threshold, found.limit, found.xrays, found.camera.sdd) == (100, None, [], 1000)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('class="ctkSliderWidget"', 'class="ctkSlidrWidget"', "no widget ctkSlidrWidget"),
        ("noneEnabled", "noneEnable", "has no property 'noneEnable'"),
        ("<slot>setDisabled(bool)</slot>", "<slot>setDisable(bool)</slot>", "has no slot"),
        ("<signal>toggled(bool)</signal>", "<signal>togled(bool)</signal>", "no signal"),
        ("<string>ct</string>", "<string>CT</string>", "wants parameter 'CT'"),
        ("<string>threshold</string>", "<string>camera.sdd</string>", "needs a parameter WithinRange"),
        ("<string>invert</string>", "<string>count</string>", "does not bind QCheckBox"),
    ],
)
def test_a_wrong_ui_file_is_an_error_that_names_the_fault(gui, sample, old, new, says) -> None:
    file = sample.parent / "Resources" / "UI" / "Sample.ui"
    assert old in UI
    file.write_text(UI.replace(old, new))
    with pytest.raises(ValueError, match=says):
        gui.load_module(sample)


def test_a_widget_without_its_scene_is_found(gui, sample) -> None:
    from Testing.slicer.standin.ui_files import unconnected_scene_widgets

    file = sample.parent / "Resources" / "UI" / "Sample.ui"
    assert unconnected_scene_widgets(file) == []
    file.write_text(UI.replace("<slot>setMRMLScene(vtkMRMLScene*)</slot>", "<slot>update()</slot>"))
    assert unconnected_scene_widgets(file) == ["ctSelector"]


def _selector(**properties):
    selector = slicer.qMRMLNodeComboBox()
    selector.nodeTypes = ["vtkMRMLScalarVolumeNode"]
    for name, value in properties.items():
        setattr(selector, name, value)
    selector.setMRMLScene(slicer.mrmlScene)
    return selector


def test_a_node_selector_follows_the_scene(gui) -> None:
    selector = _selector(noneEnabled=True, noneDisplay="nothing", addEnabled=False, removeEnabled=False)
    told = []
    selector.connect("currentNodeChanged(vtkMRMLNode*)", lambda node: told.append(node and node.GetName()))
    selector.connect("currentNodeChanged(bool)", told.append)
    node, _ = _volume("ct"), _volume("labels", "vtkMRMLLabelMapVolumeNode")
    assert selector.entries() == ["nothing", "ct", "labels"]
    selector.showChildNodeTypes = False
    assert selector.entries() == ["nothing", "ct"]
    selector.setCurrentNode(node)
    assert told == ["ct", True]
    node.SetName("bone")
    assert (selector.currentText, selector.entries(), told) == ("bone", ["nothing", "bone"], ["ct", True])
    node.SetHideFromEditors(True)
    assert selector.currentNode() is None
    assert told[2:] == [None, False]
    node.SetHideFromEditors(False)
    selector.choose("bone")
    slicer.mrmlScene.RemoveNode(node)
    assert (selector.currentNode(), selector.currentNodeID, told[-1]) == (None, "", False)
    selector.setCurrentNode(_volume("other"))
    slicer.mrmlScene.Clear(0)
    assert (selector.currentNode(), selector.entries()) == (None, ["nothing"])


def test_a_node_selector_makes_renames_and_deletes_and_filters_by_attribute(gui) -> None:
    selector = _selector(renameEnabled=True, baseName="shot")
    selector.addAttribute("vtkMRMLScalarVolumeNode", "kind", "xray")
    _volume("ct")
    assert selector.nodeCount() == 0
    assert selector.currentNode() is None
    selector.choose("Create new Volume")
    node = selector.currentNode()
    assert (node.GetName(), node.GetAttribute("kind")) == ("shot", "xray")
    gui.answers.append("AP")
    selector.choose("Rename current Volume")
    assert node.GetName() == "AP"
    selector.choose("Delete current Volume")
    assert slicer.mrmlScene.GetFirstNodeByName("AP") is None
    with pytest.raises(ValueError, match="no entry 'AP'"):
        selector.choose("AP")


def test_a_deleted_selector_observes_no_more(gui) -> None:
    selector = _selector()
    selector.delete()
    _volume("later")
    selector = _selector()
    del selector
    _volume("even later")


def test_nodes_are_ticked(gui) -> None:
    selector = slicer.qMRMLCheckableNodeComboBox()
    selector.nodeTypes = ["vtkMRMLScalarVolumeNode"]
    selector.setMRMLScene(slicer.mrmlScene)
    told = []
    selector.connect("checkedNodesChanged()", lambda: told.append(len(selector.checkedNodes())))
    a, b = _volume("a"), _volume("b")
    selector.setCheckState(a, 2)
    selector.setCheckState(b, 2)
    _volume("c")
    assert [node.GetName() for node in selector.checkedNodes()] == ["a", "b"]
    slicer.mrmlScene.RemoveNode(a)
    assert selector.checkedNodes() == [b]
    assert told == [1, 2, 1]


def test_segments_are_chosen(gui) -> None:
    selector = slicer.qMRMLSegmentSelectorWidget()
    selector.setMRMLScene(slicer.mrmlScene)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "bones")
    segmentation = node.GetSegmentation()
    femur = segmentation.AddEmptySegment("", "femur")
    told = []
    selector.connect("currentSegmentChanged(QString)", told.append)
    selector.setCurrentNode(node)
    assert (selector.currentNode(), selector.currentSegmentID()) == (node, femur)
    tibia = segmentation.AddEmptySegment("", "tibia")
    selector.setCurrentSegmentID(tibia)
    segmentation.RemoveSegment(tibia)
    assert told == [femur, tibia, femur]
    selector.multiSelection = True
    chosen = []
    selector.connect("segmentSelectionChanged(QStringList)", chosen.append)
    selector.setSelectedSegmentIDs([femur])
    assert (selector.selectedSegmentIDs(), chosen) == ([femur], [[femur]])
    segmentation.RemoveSegment(femur)
    assert (selector.selectedSegmentIDs(), selector.currentSegmentID()) == ([], "")


def test_points_are_listed_and_placed(gui) -> None:
    widget = slicer.qSlicerSimpleMarkupsWidget()
    widget.setMRMLScene(slicer.mrmlScene)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "landmarks")
    widget.setCurrentNode(node)
    node.AddControlPoint(1, 2, 3, "head")
    assert [widget.tableWidget().item(0, column).text() for column in range(4)] == ["head", "1.000", "2.000", "3.000"]
    place = widget.markupsPlaceWidget()
    place.placeButton().click()
    interaction = gui.applicationLogic().GetInteractionNode()
    assert place.placeModeEnabled
    assert interaction.GetCurrentInteractionMode() == interaction.Place
    interaction.SetCurrentInteractionMode(interaction.ViewTransform)
    assert not place.placeModeEnabled
    assert not place.placeButton().checked


def test_ctk_widgets(gui, tmp_path) -> None:
    import ctk
    import qt

    told = []
    section = ctk.ctkCollapsibleButton("More")
    layout = qt.QVBoxLayout(section)
    inner = qt.QLabel("inside")
    layout.addWidget(inner)
    section.connect("contentsCollapsed(bool)", told.append)
    section.show()
    height = section.sizeHint().height()
    assert inner.visible
    section.collapsed = True
    assert not inner.visible
    assert section.sizeHint().height() < height
    section.click()
    assert (section.collapsed, inner.visible, told) == (False, True, [True, False])
    path = ctk.ctkPathLineEdit()
    valid = []
    path.connect("validInputChanged(bool)", valid.append)
    path.currentPath = str(tmp_path)
    path.currentPath = str(tmp_path / "no")
    assert valid == [True, False]
    folder = ctk.ctkDirectoryButton()
    gui.files.append(str(tmp_path))
    folder.browse()
    assert folder.directory == str(tmp_path)
    numbers = ctk.ctkCoordinatesWidget()
    numbers.dimension, numbers.coordinates = 2, "3,4.5"
    assert numbers.coordinates == "3,4.5"
    slider = ctk.ctkSliderWidget()
    slider.setRange(0, 10)
    slider.slider().setValue(500)
    assert slider.value == pytest.approx(5)
    assert not isinstance(ctk.ctkDoubleSpinBox(), qt.QDoubleSpinBox)
    limits = ctk.ctkRangeWidget()
    limits.setRange(0, 100)
    limits.setValues(20, 30)
    assert (limits.minimumValue, limits.maximumValue, limits.maximum) == (20, 30, 100)


def test_dialogs_never_wait(gui, tmp_path) -> None:
    import qt

    slicer.util.errorDisplay("an error")
    slicer.util.delayDisplay("wait", 5000)
    gui.answers[:] = [False, "No", "Cancel"]
    assert not slicer.util.confirmOkCancelDisplay("sure?")
    assert qt.QMessageBox.question(None, "title", "really?", qt.QMessageBox.Yes | qt.QMessageBox.No) == qt.QMessageBox.No
    box = qt.QMessageBox()
    box.setText("three ways")
    box.setIcon(qt.QMessageBox.Warning)
    box.setStandardButtons(qt.QMessageBox.Ok | qt.QMessageBox.Cancel)
    assert box.exec_() == qt.QMessageBox.Cancel
    assert slicer.util.confirmYesNoDisplay("yes by default?")
    assert not slicer.util.confirmRetryCloseDisplay("again?")
    assert gui.messages == [
        ("error", "an error"), ("delay", "wait"), ("question", "sure?"), ("question", "really?"), ("warning", "three ways"),
        ("question", "yes by default?"), ("retry", "again?"),
    ]  # fmt: skip
    gui.files.append(str(tmp_path / "pose.json"))
    assert qt.QFileDialog.getSaveFileName(None, "Save the pose") == str(tmp_path / "pose.json")
    assert qt.QFileDialog.getOpenFileName(None, "Open") == ""
    assert gui.file_dialogs == ["Save the pose", "Open"]


def test_waiting_ends_with_the_condition_with_time_or_with_an_error(gui) -> None:
    import qt

    done = []
    qt.QTimer.singleShot(20, lambda: done.append(1))
    gui.wait(lambda: done)
    with pytest.raises(AssertionError, match=r"waited 0\.05 s in vain"):
        gui.wait(lambda: False, 0.05)
    qt.QTimer.singleShot(5, lambda: 1 / 0)
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        gui.wait(lambda: False)
    gui.errors.clear()


def test_packages_are_asked_for_and_never_installed(gui, tmp_path) -> None:
    import slicer.packaging

    file = tmp_path / "requirements.txt"
    file.write_text("numpy>=1.20  # there\nno-such-package>=2\n")
    wanted = slicer.packaging.load_requirements(file)
    assert not slicer.packaging.pip_check(wanted)
    gui.testing = True
    slicer.packaging.pip_ensure(wanted, requester="Sample")
    assert gui.packages.installed == []
    gui.testing = False
    gui.packages.answer = "decline"
    with pytest.raises(RuntimeError, match="declined"):
        slicer.packaging.pip_ensure(wanted, requester="Sample")
    gui.packages.answer = "fail"
    with pytest.raises(subprocess.CalledProcessError):
        slicer.packaging.pip_ensure(wanted, requester="Sample")
    gui.packages.answer = "install"
    slicer.packaging.pip_ensure(wanted, requester="Sample")
    assert gui.packages.installed == ["no-such-package"]
    assert slicer.packaging.pip_check(wanted)
    with pytest.raises(ModuleNotFoundError):
        import PyTorchUtils
    gui.add_pytorch()
    import PyTorchUtils

    assert PyTorchUtils.PyTorchUtilsLogic().installTorch(askConfirmation=True) is None


def test_views_are_real(gui, loaded, tmp_path) -> None:
    from Testing.slicer.standin.views import can_render

    if not can_render():
        pytest.skip("this machine renders nothing offscreen")
    node = _volume()
    slicer.util.setSliceViewerLayers(background=node, fit=True)
    manager = slicer.app.layoutManager()
    red = manager.sliceWidget("Red")
    assert red.mrmlSliceCompositeNode().GetBackgroundVolumeID() == node.GetID()
    picture = red.picture(120, 100)
    assert picture.std() > 10  # noise, not one grey
    slicer.util.setSliceViewerLayers(background=None)
    assert red.picture(120, 100).max() == 0
    import vtk

    source = vtk.vtkSphereSource()
    source.SetRadius(40)
    source.Update()
    view = manager.threeDWidget(0).threeDView()
    assert view.cameraNode().GetLayoutName() == view.mrmlViewNode().GetLayoutName()
    before = view.picture(120, 100)
    model = slicer.modules.models.logic().AddModel(source.GetOutput())
    model.GetDisplayNode().SetColor(1, 0, 0)
    after = view.picture(120, 100)
    reddish = (after[..., 0].astype(int) - after[..., 2] > 60).sum()
    assert reddish > 200 > (before[..., 0].astype(int) - before[..., 2] > 60).sum()


def test_a_layout_shows_its_views(gui) -> None:
    manager = slicer.app.layoutManager()
    xml = """<layout type="horizontal"><item><view class="vtkMRMLViewNode" singletontag="Source"/></item>
      <item><view class="vtkMRMLSliceNode" singletontag="XRay">
        <property name="orientation" action="default">Axial</property></view></item></layout>"""
    layout = manager.layoutLogic().GetLayoutNode()
    if not layout.IsLayoutDescription(901):
        layout.AddLayoutDescription(901, xml)
    manager.setLayout(901)
    assert [view.name for view in manager.shown_views()] == ["Source", "XRay"]
    assert manager.sliceWidget("XRay").mrmlSliceNode().GetLayoutName() == "XRay"
    assert manager.threeDWidget("Source").mrmlViewNode().GetLayoutName() == "Source"
    manager.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutOneUpRedSliceView)
    assert [view.name for view in manager.shown_views()] == ["Red"]
    red = manager.sliceWidget("Red")
    gui.reset()
    assert len(manager.shown_views()) == 4
    assert manager.sliceWidget("Red") is not red
    assert manager.sliceWidget("Red").mrmlSliceNode() is slicer.mrmlScene.GetSingletonNode("Red", "vtkMRMLSliceNode")
    assert gui.applicationLogic().GetSliceLogicByLayoutName("Red") is manager.sliceWidget("Red").sliceLogic()


def test_a_picture_shows_panel_and_views(gui, loaded, tmp_path) -> None:
    import qt

    slicer.app.layoutManager().setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutOneUpRedSliceView)
    slicer.util.setSliceViewerLayers(background=_volume(), fit=True)
    picture = qt.QImage(str(gui.picture(tmp_path / "all.png", 640, 400, 300)))
    assert (picture.width(), picture.height()) == (640, 400)
    columns = [{picture.pixel(x, y) for y in range(0, 400, 3)} for x in (60, 470)]
    assert len(columns[0]) > 3  # the panel
    from Testing.slicer.standin.views import can_render

    assert not can_render() or len(columns[1]) > 3
    assert loaded.panel.grab().save(str(tmp_path / "panel.png"))
    picture = gui.picture(tmp_path / "again.png", 640, 400, 300)
    assert picture.exists()


FAULTS = """
import sys
import pytest

def test_slot(gui):
    import qt
    button = qt.QPushButton()
    button.connect("clicked()", lambda: 1 / 0)
    button.click()

def test_observer(gui):
    import slicer
    slicer.mrmlScene.AddObserver(slicer.vtkMRMLScene.NodeAddedEvent, lambda *_: 1 / 0)
    slicer.mrmlScene.AddNewNodeByClass("vtkMRMLModelNode")
    slicer.mrmlScene.RemoveAllObservers()

def test_timer(gui):
    import qt
    global timer
    timer = qt.QTimer()
    timer.start(1000)

def test_single_shot(gui):
    import qt
    qt.QTimer.singleShot(5000, print)

def test_process(gui):
    import subprocess
    global process
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"])

def test_good(gui):
    process.kill()
    process.wait()
    timer.stop()
"""


def test_the_fixture_finds_hidden_faults(tmp_path) -> None:
    (tmp_path / "test_faults.py").write_text(FAULTS)
    (tmp_path / "conftest.py").write_text("from Testing.slicer.conftest import _stand_in, application, gui\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--rootdir={tmp_path}", str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert run.returncode == 1, run.stdout + run.stderr
    assert "6 passed, 5 errors" in run.stdout, run.stdout + run.stderr
    for fault in ("ZeroDivisionError", "QTimer of None, every 1000 ms", "QTimer.singleShot", "left running: process"):
        assert fault in run.stdout, fault


def test_a_parameter_that_slicer_cannot_keep_is_refused(gui) -> None:
    """Slicer knows Optional[X] and not X | None, of which it says so when the module is loaded, and loads none."""
    from slicer.parameterNodeWrapper import parameterNodeWrapper

    refused = type("Refused", (), {"__annotations__": {"ct": slicer.vtkMRMLScalarVolumeNode | None}})
    with pytest.raises(TypeError, match="cannot keep"):
        parameterNodeWrapper(refused)
