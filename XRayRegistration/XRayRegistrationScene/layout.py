"""The module's layout: the X-ray with its overlay at the left, the 3D view at the right."""

from __future__ import annotations

import slicer

LAYOUT_ID = 5287  # any number that no other module takes
VIEW = "XRay"  # of the slice view
_DESCRIPTION = f"""
<layout type="horizontal" split="true">
 <item>
  <view class="vtkMRMLSliceNode" singletontag="{VIEW}">
   <property name="orientation" action="default">Axial</property>
   <property name="viewlabel" action="default">X</property>
   <property name="viewcolor" action="default">#F2C14E</property>
  </view>
 </item>
 <item>
  <view class="vtkMRMLViewNode" singletontag="1">
   <property name="viewlabel" action="default">1</property>
  </view>
 </item>
</layout>
"""


def register():
    """Make the layout known to the application; again does nothing."""
    node = _layout_node()
    if node is not None and not node.IsLayoutDescription(LAYOUT_ID):
        node.AddLayoutDescription(LAYOUT_ID, _DESCRIPTION)


def show():
    """Switch to it."""
    register()
    manager = slicer.app.layoutManager()
    if manager is not None:
        manager.setLayout(LAYOUT_ID)


def centre_3d():
    """Bring what is in the scene into the 3D view."""
    view = _view_3d()
    if view is not None:
        view.resetFocalPoint()


def xray_slice_node():
    """The slice view of the X-ray; None while the layout is not shown."""
    manager = slicer.app.layoutManager()
    widget = None if manager is None else manager.sliceWidget(VIEW)
    return None if widget is None else widget.mrmlSliceNode()


def camera_node():
    """The camera of the first 3D view; None where there is none."""
    view = _view_3d()
    return None if view is None else slicer.modules.cameras.logic().GetViewActiveCameraNode(view.mrmlViewNode())


def aspect():
    """Width by height of the first 3D view."""
    view = _view_3d()
    return 1.0 if view is None else view.width / max(view.height, 1)


def _view_3d():
    manager = slicer.app.layoutManager()
    return manager.threeDWidget(0).threeDView() if manager is not None and manager.threeDViewCount else None


def _layout_node():
    manager = slicer.app.layoutManager()
    return None if manager is None else manager.layoutLogic().GetLayoutNode()
