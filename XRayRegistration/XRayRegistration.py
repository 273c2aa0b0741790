"""XRayRegistration: where was this X-ray taken from? A module of 3D Slicer; see README.md of the extension."""

import os
from typing import Annotated

import qt
import slicer
import slicer.util
import vtk
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin
from XRayRegistrationPanel.ct_section import CTSection
from XRayRegistrationPanel.method_section import MethodSection
from XRayRegistrationPanel.result_section import ResultSection
from XRayRegistrationPanel.run_section import RunSection
from XRayRegistrationPanel.training_section import TrainingSection
from XRayRegistrationPanel.xray_section import XRaySection
from XRayRegistrationScene import (
    bone_nodes,
    demo_case,
    export,
    landmark_nodes,
    layout,
    live_view,
    overlays,
    packages,
    poses,
    registration,
    slice_views,
    source_view,
    sync,
    volume_nodes,
    xray_import,
    xray_nodes,
)
from XRayRegistrationScene.folder_job import registration_job, training_job
from XRayRegistrationScene.jobs import LocalJobRunner

from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.geometry import carm_presets
from XRayRegistrationLib.images.camera_file import read_camera
from XRayRegistrationLib.networks.weights_store import weights_folder
from XRayRegistrationLib.request import fulfil
from XRayRegistrationLib.solvers.landmark_pose import pose_from_landmarks


class XRayRegistration(ScriptedLoadableModule):
    """What Slicer shows of the module before it is opened."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("X-ray Registration")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Registration")]
        parent.dependencies = []
        parent.contributors = ["XRayRegistration contributors"]
        parent.helpText = _(
            "Finds where an X-ray was taken from, by registering it to a CT of the same bone. "
            "Not for clinical use. "
        ) + self.getDefaultModuleDocumentationLink()
        parent.acknowledgementText = _(
            "Methods after RayEmb, scene coordinates, ProST, SOPI, DFLNet and DiffDRR; see the papers in the tutorial."
        )
        slicer.app.connect("startupCompleted()", registerSampleData)


def registerSampleData():
    """Offer demo cases in the module Sample Data."""
    import SampleData

    folder = os.path.join(os.path.dirname(__file__), "Resources", "Icons")
    for name, maker in (("XRayRegistrationTorso", demo_case.download_torso), ("XRayRegistrationChest", demo_case.download_chest)):
        SampleData.SampleDataLogic.registerCustomSampleDataSource(
            category="X-ray Registration",
            sampleName=name,
            thumbnailFileName=os.path.join(folder, f"{name}.png"),
            uris=None,
            fileNames=None,
            nodeNames=None,
            customDownloader=maker,
        )


@parameterNodeWrapper
class XRayRegistrationParameterNode:
    """What the panel remembers; saved with the scene.

    The X-rays are not in here: they carry their cameras, poses and results themselves.
    """

    ct: slicer.vtkMRMLScalarVolumeNode  # a node is None until it is chosen
    segmentation: slicer.vtkMRMLSegmentationNode
    segment: str = ""
    chooseThreshold: bool = False
    threshold: Annotated[float, WithinRange(50, 3000)] = 250.0
    landmarks: slicer.vtkMRMLMarkupsFiducialNode
    imageLandmarks: slicer.vtkMRMLMarkupsFiducialNode
    rig: bool = False
    method: str = "diffdrr"
    start: str = "none"
    solver: str = "lm"
    paperMode: bool = False
    backend: str = "auto"
    seed: Annotated[int, WithinRange(0, 999999)] = 0
    handles: bool = False
    liveDrr: bool = True
    overlay: str = "blend"
    opacity: Annotated[float, WithinRange(0, 1)] = 0.5
    trainingMinutes: Annotated[int, WithinRange(1, 10000)] = 30


class XRayRegistrationWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The panel. What is in it is in XRayRegistrationPanel, one section a file."""

    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = None
        self.parameters = None
        self._gui = None
        self._refreshing = False
        self._refresh_waits = False

    def setup(self):
        """Called once, when the module is first opened."""
        ScriptedLoadableModuleWidget.setup(self)
        widget = slicer.util.loadUI(self.resourcePath("UI/XRayRegistration.ui"))
        self.layout.addWidget(widget)
        self.ui = slicer.util.childWidgetVariables(widget)
        self.logic = XRayRegistrationLogic()
        self.live = live_view.LiveView(lambda function: qt.QTimer.singleShot(0, function))
        self.parameters = self.logic.getParameterNode()
        self.ct = CTSection(self)
        self.xrays = XRaySection(self)
        self.methods = MethodSection(self)
        self.run = RunSection(self)
        self.results = ResultSection(self)
        self.training = TrainingSection(self)
        widget.setMRMLScene(slicer.mrmlScene)
        self.ui.demoButton.connect("clicked(bool)", self.make_demo_case)
        scene = slicer.vtkMRMLScene
        self.addObserver(slicer.mrmlScene, scene.StartCloseEvent, self._scene_closes)
        for event in (scene.EndCloseEvent, scene.EndImportEvent):
            self.addObserver(slicer.mrmlScene, event, self._scene_changed)
        for event in (scene.NodeAddedEvent, scene.NodeRemovedEvent):
            self.addObserver(slicer.mrmlScene, event, self._node_came_or_went)
        self._use(self.parameters)

    def cleanup(self):
        """Called when the application closes or the module is reloaded."""
        self.run.close()
        self.training.close()
        self._use(None)
        self.live.close()
        self.removeObservers()

    def enter(self):
        """Called whenever the user opens the module."""
        self._use(self.logic.getParameterNode())
        layout.register()

    def exit(self):
        """Called whenever the user goes to another module. A registration that runs goes on."""

    @property
    def busy(self):
        """Whether a registration runs."""
        return self.run.busy

    @property
    def missing(self):
        """What is still to be done before registering, or ""."""
        return self.ct.missing or self.xrays.missing or self.methods.missing

    def refresh(self):
        """Bring every section up to what the scene holds."""
        self._refresh_waits = False
        if self.parameters is None or self._refreshing or slicer.mrmlScene.IsClosing() or slicer.mrmlScene.IsImporting():
            return
        self._refreshing = True
        try:
            if self.parameters.ct is None:
                self.parameters.ct = volume_nodes.only_ct()
            if self.parameters.ct is not None:
                self.logic.placeNewXRays(self.parameters.ct)
            self._watch()
            if self.parameters.imageLandmarks is not None and self.xrays.sound is not None:
                landmark_nodes.attach_new(self.parameters.imageLandmarks, self.xrays.sound)
            for section in (self.ct, self.xrays, self.methods, self.results, self.training, self.run):
                section.refresh()
            self.ui.demoButton.enabled = not self.busy
            self._follow()
        except Exception:
            self.results.clear()  # a panel that is not up to date vouches for nothing
            raise
        finally:
            self._refreshing = False

    def _watch(self):
        """A verdict holds for one place, one camera and one CT: whoever changes them changes the panel."""
        moved = slicer.vtkMRMLTransformableNode.TransformModifiedEvent
        watched = [(node, event) for node in xray_nodes.xray_nodes() for event in (moved, vtk.vtkCommand.ModifiedEvent)]
        watched += [(node, moved) for node in (self.parameters.ct, self.parameters.segmentation) if node is not None]
        points = slicer.vtkMRMLMarkupsNode
        for node in (self.parameters.landmarks, self.parameters.imageLandmarks):
            if node is not None:
                events = (moved, points.PointModifiedEvent, points.PointPositionDefinedEvent, points.PointRemovedEvent)
                watched += [(node, event) for event in events]
        for node, event in watched:
            if not self.hasObserver(node, event, self._parameters_changed):
                self.addObserver(node, event, self._parameters_changed)

    def refresh_soon(self):
        """After the events that are under way; any number of calls until then are one."""
        if not self._refresh_waits:
            self._refresh_waits = True
            qt.QTimer.singleShot(0, self.refresh)

    def show_chosen(self, arrange=True):
        """X-ray with its overlay, and the 3D view."""
        if arrange:
            layout.show()
        self.refresh()
        layout.centre_3d()
        if self.xrays.sound is not None:
            self._show(self.xrays.sound)
            if arrange:
                qt.QTimer.singleShot(0, self._fit)  # once the views have their sizes

    def make_demo_case(self, *arguments):
        """A CT, an X-ray and nothing else; replaces nothing that is in the scene."""
        with slicer.util.WaitCursor():
            ct, xray = self.logic.makeDemoCase()
        self.parameters.ct = ct
        self.xrays.choose(xray)
        self.show_chosen()

    def _follow(self):
        parameters, chosen = self.parameters, self.xrays.sound
        self.live.follow(
            chosen,
            parameters.ct if parameters.liveDrr else None,
            parameters.segmentation,
            parameters.landmarks if chosen is not None and poses.is_placed(chosen) else None,
            parameters.backend,
        )
        self.live.set_handles(chosen, parameters.handles)
        if chosen is not None and self.live.is_shown_or_another(chosen, layout.xray_slice_node()):
            self._show(chosen)

    def _show(self, node):
        # over an X-ray that stands anywhere a DRR would only be in the way
        mode = self.parameters.overlay if poses.is_placed(node) else "xray"
        self.live.show(node, mode, self.parameters.opacity, layout.xray_slice_node())

    def _fit(self):
        if self.xrays.sound is not None and layout.xray_slice_node() is not None:
            slice_views.fit(self.xrays.sound, layout.xray_slice_node())

    def _use(self, parameters):
        if self.parameters is not None and self._gui is not None:
            self.parameters.disconnectGui(self._gui)
            self.removeObserver(self.parameters.parameterNode, vtk.vtkCommand.ModifiedEvent, self._parameters_changed)
            self._gui = None
        self.parameters = parameters
        if parameters is not None:
            self._gui = parameters.connectGui(self.ui)
            self.addObserver(parameters.parameterNode, vtk.vtkCommand.ModifiedEvent, self._parameters_changed)
            self.refresh()

    def _parameters_changed(self, caller, event):
        self.refresh_soon()

    def _scene_closes(self, caller, event):
        self.run.forget()
        if self.busy:
            self.run.cancel("Cancelled, for the scene was closed.")
        if self.training.busy:
            self.training.cancel("Cancelled, for the scene was closed.")
        self._use(None)

    def _scene_changed(self, caller, event):
        self._use(self.logic.getParameterNode())

    def _node_came_or_went(self, caller, event):
        self.refresh_soon()


class XRayRegistrationLogic(ScriptedLoadableModuleLogic):
    """Everything the panel does, as calls for the Python console: nodes and plain values in, nodes and values out.

    Errors of the input are raised as XRayRegistrationLib.errors.InputError with one line that says what is allowed.

    Example, in Slicer's Python console::

        logic = slicer.util.getModuleLogic("XRayRegistration")
        xray = logic.importXRay("/data/knee.dcm")
        result = logic.register(getNode("CT"), xray)
        print(result.status, result.probability, result.message)
    """

    def __init__(self):
        ScriptedLoadableModuleLogic.__init__(self)
        self.jobRunner = LocalJobRunner()  # tests put their own here

    def getParameterNode(self):
        """What the panel shows, as attributes that can be read and set."""
        return XRayRegistrationParameterNode(ScriptedLoadableModuleLogic.getParameterNode(self))

    def segmentBone(self, ctNode, threshold=None, segmentationNode=None):
        """Segment the bone of a CT without a network.

        Args:
            ctNode: scalar volume in Hounsfield units.
            threshold: of dense bone in HU; None chooses one.
            segmentationNode: whose segment "Bone" is replaced; None makes a new segmentation.

        Returns:
            The segmentation node, with a closed surface.
        """
        return bone_nodes.segment_bone_of(ctNode, threshold, segmentationNode)

    def sampleLandmarks(self, ctNode, segmentationNode, count=12):
        """Points well apart on the bone's surface, as a point list."""
        return landmark_nodes.sample_landmarks(ctNode, segmentationNode, count)

    def importXRay(
        self, path, cameraFile=None, frame=None, sourceDetectorDistance=None, pixelSpacing=None, polarity="auto", mask=True,
        name=None,
    ):  # fmt: skip
        """Read an X-ray from DICOM, PNG, TIFF, NRRD or MHA.

        Args:
            path: the file.
            cameraFile: camera.json or MayaCam text; None takes the DICOM header. With it, no single values are taken.
            frame: of a run, from 0; None is the middle one.
            sourceDetectorDistance: mm, where the file is silent or wrong.
            pixelSpacing: mm on the detector, one number or (column, row).
            polarity: "auto", "bone_bright" or "bone_dark".
            mask: look for collimator, round field and saturated pixels.
            name: of the node.

        Returns:
            The X-ray node, a one-slice volume under a linear transform (its pose, ct_from_camera).
        """
        return xray_import.import_xray(
            path, cameraFile, frame=frame, source_detector_distance_mm=sourceDetectorDistance, pixel_spacing_mm=pixelSpacing,
            polarity=polarity, mask=mask, name=name,
        )  # fmt: skip

    def useAsXRay(self, volumeNode, cameraFile=None, frame=None, polarity="auto", mask=True):
        """Make an X-ray of an image in the scene; arguments as for importXRay. The image itself stays as it is."""
        return xray_import.xray_from_volume(volumeNode, cameraFile, frame=frame, polarity=polarity, mask=mask)

    def setCamera(
        self, xrayNode, cameraFile=None, cArm=None, sourceDetectorDistance=None, pixelSpacing=None, principalPoint=None
    ):  # fmt: skip
        """Replace an X-ray's camera, or single values of it.

        Args:
            xrayNode: as importXRay returns it.
            cameraFile: camera.json or MayaCam text; with camera_from_rig the X-ray becomes a view of a rig.
            cArm: a name of cArms().
            sourceDetectorDistance: mm. pixelSpacing: (column, row) mm. principalPoint: (u, v) px.
        """
        xray_nodes.check_xray(xrayNode)
        width, height, _depth = xrayNode.GetImageData().GetDimensions()
        if cameraFile is not None:
            camera = read_camera(cameraFile, (width, height))
            xray_nodes.set_camera(xrayNode, camera, {"camera": f"given: {os.path.basename(str(cameraFile))}"})
            xray_nodes.set_camera_from_rig(xrayNode, camera.camera_from_rig)
        if cArm is not None:
            presets = self._presets()
            if cArm not in presets:
                raise InputError(f"the C-arm {cArm!r} is unknown; allowed are {', '.join(presets)}")
            xray_nodes.set_camera(xrayNode, carm_presets.camera_of(presets[cArm], width, height), presets[cArm].provenance)
        if any(value is not None for value in (sourceDetectorDistance, pixelSpacing, principalPoint)):
            xray_nodes.set_camera_values(xrayNode, sourceDetectorDistance, pixelSpacing, principalPoint)

    def cArms(self):
        """Names of the C-arms whose cameras are known."""
        return list(self._presets())

    def placeNewXRays(self, ctNode):
        """Let X-rays that nobody has placed yet see the CT from the front, so that there is something to look at."""
        centre = None
        for node in xray_nodes.xray_nodes():
            try:
                if xray_nodes.stands_anywhere(node):
                    centre = volume_nodes.centre_of(ctNode) if centre is None else centre
                    if centre is not None:
                        xray_nodes.guess(node, centre)
            except InputError:  # under a transform that is not rigid: registering it says so
                continue

    def moveToView(self, xrayNode, ctNode, view):
        """Let an X-ray see the CT's centre from "ap", "pa", "lat-left" or "lat-right"."""
        xray_nodes.face(xrayNode, volume_nodes.centre_of(ctNode), view)

    def mirrorXRay(self, xrayNode):
        """Mirror an X-ray left to right, for one that is stored as seen from the other side; again takes it back."""
        xray_nodes.mirror(xrayNode)
        registration.forget_result(xrayNode)  # it was of another picture

    def cArmNote(self, name):
        """What to know about the C-arm of this name; "" where there is nothing, or no such C-arm."""
        preset = self._presets().get(name)
        return "" if preset is None else preset.note

    def removeXRay(self, xrayNode):
        """Take an X-ray out of the scene, and all that hangs on it."""
        xray_nodes.check_xray(xrayNode)
        sync.remove_dependents(xrayNode)
        slicer.mrmlScene.RemoveNode(xrayNode)

    def moveToLandmarks(self, xrayNode, landmarksNode, imageLandmarksNode):
        """Move an X-ray to where points on it and points on the CT, of the same names, agree best.

        Args:
            landmarksNode: points on the CT. imageLandmarksNode: points on the X-ray's picture.

        Returns:
            XRayRegistrationLib.solvers.landmark_pose.LandmarkPose, with residuals and a warning where it is weak.
        """
        names, points, pixels = landmark_nodes.pairs_of(landmarksNode, imageLandmarksNode, xrayNode)
        found = pose_from_landmarks(points, pixels, xray_nodes.camera_of(xrayNode), names)
        landmark_nodes.attach_to_image(imageLandmarksNode, xrayNode)
        poses.remember(xrayNode, poses.START)
        xray_nodes.set_camera_from_world(xrayNode, found.camera_from_ct)
        return found

    def register(self, ctNode, xrayNodes, method="diffdrr", progress=None, **settings):
        """Find where an X-ray was taken from, and show it. Returns when it is done; see startRegistration.

        Args:
            ctNode: scalar volume in Hounsfield units.
            xrayNodes: one X-ray, or a list of those that share one pose (a rig).
            method: a name in XRayRegistrationLib.methods.METHODS.
            progress: called with (fraction, text); raising from it cancels.
            settings: segmentationNode; segments, a list of names, to register these bones alone; start: "none", "ap",
                "pa", "lat-left", "lat-right", "current" or camera_from_world (4, 4); landmarksNode; options, a
                dictionary; backend: "auto", "scipy", "numba", "torch" or "diffdrr"; seed.

        Returns:
            XRayRegistrationLib.result.Result. Look at its status: a pose that the check does not believe is a
            "failure", and must not be used.
        """
        nodes = _list(xrayNodes)
        request = self._request(ctNode, nodes, method, **settings)
        result = fulfil(request, progress)
        self.showResult(result, nodes, ctNode, request.ct.ras_from_ijk)
        return result

    def startRegistration(self, ctNode, xrayNodes, method="diffdrr", **settings):
        """As register, in a process of its own: returns a job to be polled, whose result is for showResult."""
        return registration_job(self._request(ctNode, _list(xrayNodes), method, **settings), self.jobRunner)

    def showResult(self, result, xrayNodes, ctNode=None, rasFromIJK=None):
        """Move X-rays to a result's pose, remember where they were, and keep the result with the scene.

        With its CT given, the result holds only while the CT stays where it is; or where it was when it was registered,
        rasFromIJK (4, 4).
        """
        return registration.show(result, _list(xrayNodes), ctNode, rasFromIJK)

    def resultOf(self, xrayNode):
        """The Result that an X-ray's pose came from; None when there is none or it was moved since."""
        return registration.result_of(xrayNode)

    def undo(self, xrayNode):
        """Take a registration back: the X-ray returns to where it was, and its result is forgotten."""
        registration.take_back(xrayNode)

    def renderDRR(self, ctNode, xrayNode, backend="auto", largestPixels=None):
        """Render the CT at an X-ray's pose as a volume that lies exactly on the X-ray. Returns the volume node.

        Args:
            largestPixels: longer side of the DRR; None for every pixel of the X-ray.
        """
        return live_view.render_drr(ctNode, xrayNode, backend, largestPixels)

    def projectLandmarks(self, landmarksNode, xrayNode, imageLandmarksNode=None):
        """Where an X-ray at its present pose shows points on the CT.

        Args:
            imageLandmarksNode: points on the X-ray's picture; those of the same names are compared.

        Returns:
            A list of dictionaries: name, world (x, y, z) mm, pixel (u, v), in_view, off_px and off_mm (None where
            there is nothing to compare with; mm at the landmark's depth).
        """
        return landmark_nodes.table_of(landmarksNode, xrayNode, imageLandmarksNode)

    def showOverlay(self, xrayNode, mode, sliceNode=None, opacity=0.5):
        """Lay "blend", "checkerboard", "edges", "drr" or "xray" (nothing) over an X-ray with a DRR in a slice view."""
        xray_nodes.check_xray(xrayNode)
        return overlays.show_overlay(xrayNode, mode, [sliceNode] if sliceNode is not None else (), opacity)

    def viewFromSource(self, xrayNode):
        """Look from the X-ray's source in the first 3D view."""
        source_view.look_from_source(xrayNode, layout.camera_node(), layout.aspect())

    def exportResult(self, xrayNode, folder, ctNode, segmentationNode=None, imageLandmarksNode=None):
        """Write a registered X-ray's transform, landmarks, DRR, pictures, CSV and report. Returns the files' paths."""
        return export.export_result(xrayNode, folder, ctNode, segmentationNode, imageLandmarksNode)

    def makeDemoCase(self, seed=1):
        """A torso's CT and an X-ray of it from an unknown place, with no download. Returns (ctNode, xrayNode)."""
        return demo_case.add_torso(seed)

    def startTraining(self, ctNode, method, minutes):
        """Train a method that learns on a CT, in a process of its own: returns a job to be polled.

        Weights that an earlier training of the method on this CT left, finished or not, are trained further.
        """
        return training_job(method, volume_nodes.volume_of(ctNode), minutes, self.weightsPath(ctNode, method), self.jobRunner)

    def weightsPath(self, ctNode, method):
        """Where the weights of a method trained on a CT are kept; CTs of one name have different ones."""
        name = "".join(c if c.isalnum() else "_" for c in ctNode.GetName())
        return weights_folder() / f"{method}-{name}-{volume_nodes.mark_of(ctNode)}.safetensors"

    def install(self, requirements, why):
        """Ask, and install packages into Slicer's Python; torch through the extension PyTorch.

        Returns:
            Whether they are there now.
        """
        return packages.ensure(requirements, why)

    def _request(
        self, ctNode, nodes, method, segmentationNode=None, segments=None, start="none", landmarksNode=None, options=None,
        backend="auto", seed=0,
    ):  # fmt: skip
        return registration.gather(
            ctNode, nodes, method=method, segmentation=segmentationNode, segments=segments, start=start, landmarks=landmarksNode,
            options=options, backend=backend, seed=seed,
        )  # fmt: skip

    def _presets(self):
        return carm_presets.read_presets(os.path.join(os.path.dirname(__file__), "Resources", "CArms"))


class XRayRegistrationTest(ScriptedLoadableModuleTest):
    """Runs in Slicer, and unchanged on the project's stand-in."""

    def setUp(self):
        """An empty scene."""
        slicer.mrmlScene.Clear()

    def runTest(self):
        """Every test, one after the other."""
        for name in sorted(name for name in dir(self) if name.startswith("test_")):
            self.setUp()
            getattr(self, name)()

    def test_demo_case_is_registered_without_a_start(self):
        """The thinnest line through it all."""
        self.delayDisplay("Making a demo case")
        logic = XRayRegistrationLogic()
        ct, xray = logic.makeDemoCase()
        self.delayDisplay("Registering")
        result = logic.register(ct, xray)
        self.assertEqual(result.status, "success", result.message)
        self.assertLess(demo_case.error_mm(xray), 2.0)
        self.assertIsNotNone(logic.resultOf(xray))
        drr = logic.renderDRR(ct, xray, largestPixels=64)
        self.assertGreater(drr.GetImageData().GetScalarRange()[1], 0.0)
        logic.undo(xray)
        self.assertIsNone(logic.resultOf(xray))
        self.delayDisplay("Test passed")


def _list(nodes):
    return list(nodes) if isinstance(nodes, (list, tuple)) else [nodes]
