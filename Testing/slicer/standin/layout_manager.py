"""``slicer.app.layoutManager()`` on Slicer's real layout logic: its XML tells which views lie where."""

from __future__ import annotations

import qt
import slicer
import slicer.util
import vtk

from .views import OtherWidget, SliceWidget, ThreeDWidget

_NODES = ("vtkMRMLSliceCompositeNode", "vtkMRMLSliceDisplayNode", "vtkMRMLCameraNode", "vtkMRMLAbstractViewNode")


class LayoutManager:
    """The views, made when their layout first shows them."""

    def __init__(self, app) -> None:
        self._app = app
        self._views: dict[tuple[str, str], qt.QWidget] = {}
        self.viewport = qt.QWidget()
        qt.QHBoxLayout(self.viewport).setContentsMargins(0, 0, 0, 0)
        self._logic = None

    def start(self) -> None:
        """Four views, as Slicer starts."""
        self._logic = slicer.vtkMRMLLayoutLogic()
        self._logic.SetMRMLScene(slicer.mrmlScene)
        self._node = self._logic.GetLayoutNode()
        self.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
        self._observer = self._node.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: self._update())

    def close(self) -> None:
        """Remove the views and their nodes: two renderers of one view node would get into each other's way."""
        if self._logic is None:
            return
        self._node.RemoveObserver(self._observer)
        for view in self._views.values():
            view.close_view()
            view.setParent(None)
        self._views.clear()
        self._logic.SetMRMLScene(None)
        self._logic = None
        for kind in _NODES:
            for node in slicer.util.getNodesByClass(kind):
                slicer.mrmlScene.RemoveNode(node)

    def layoutLogic(self):
        return self._logic

    @property
    def layout(self) -> int:
        return self._node.GetViewArrangement()

    @layout.setter
    def layout(self, layout: int) -> None:
        self.setLayout(layout)

    def setLayout(self, layout: int) -> None:
        self._node.SetViewArrangement(layout)
        self._update()

    def _update(self) -> None:
        """Make the views that the layout's XML names; Qt's widgets are arranged for a picture only."""
        root = self._node.GetLayoutRootElement()
        if root is not None and not slicer.mrmlScene.IsClosing():
            for element in _views_of(root):
                self._view(element)

    def _view(self, element):
        kind, tag = element.GetAttribute("class"), element.GetAttribute("singletontag")
        if (kind, tag) not in self._views:
            node = slicer.mrmlScene.GetSingletonNode(tag, kind)
            makers = {"vtkMRMLSliceNode": SliceWidget, "vtkMRMLViewNode": ThreeDWidget}
            if node is None:
                return None
            self._views[kind, tag] = makers.get(kind, OtherWidget)(self._app, node)
        return self._views[kind, tag]

    def _arrange(self, element):
        """The widget of an element of a layout's XML."""
        name = element.GetName()
        if name == "view":
            widget = self._view(element)
            if widget is not None:
                widget.show()
            return widget
        children = [element.GetNestedElement(i) for i in range(element.GetNumberOfNestedElements())]
        if name == "item":
            return self._arrange(children[0])
        vertical = element.GetAttribute("type") == "vertical"
        splitter = qt.QSplitter(qt.Qt.Vertical if vertical else qt.Qt.Horizontal)
        for widget in map(self._arrange, children):
            if widget is not None:
                splitter.addWidget(widget)
        splitter.setSizes([1000] * splitter.count())
        return splitter

    def arrange(self) -> None:
        """Lay the current layout's views out in :attr:`viewport`."""
        for view in self._views.values():
            view.setParent(None)
        layout = self.viewport.layout()
        while layout.count():
            layout.takeAt(0).widget().deleteLater()
        layout.addWidget(self._arrange(self._node.GetLayoutRootElement()))

    def shown_views(self) -> list:
        """The slice and 3D views of the current layout."""
        views = map(self._view, _views_of(self._node.GetLayoutRootElement()))
        return [view for view in views if isinstance(view, (SliceWidget, ThreeDWidget))]

    def _of(self, kind: type) -> list:
        return [view for view in self._views.values() if isinstance(view, kind)]

    def sliceViewNames(self) -> tuple[str, ...]:
        return tuple(view.name for view in self._of(SliceWidget))

    def sliceWidget(self, name: str):
        return next((view for view in self._of(SliceWidget) if view.name == name), None)

    def mrmlSliceLogics(self):
        return self._app.logic.GetSliceLogics()

    @property
    def threeDViewCount(self) -> int:
        return len(self._of(ThreeDWidget))

    def threeDWidget(self, which):
        """By number, or by the name of the view node."""
        views = self._of(ThreeDWidget)
        if isinstance(which, int):
            return views[which] if which < len(views) else None
        return next((view for view in views if which in (view.name, view.mrmlViewNode().GetName())), None)

    def activeMRMLThreeDViewNode(self):
        return self.threeDWidget(0).mrmlViewNode()

    def resetThreeDViews(self) -> None:
        for view in self._of(ThreeDWidget):
            view.resetFocalPoint()

    def resetSliceViews(self) -> None:
        for view in self._of(SliceWidget):
            view.fitSliceToBackground()


def _views_of(element) -> list:
    if element.GetName() == "view":
        return [element]
    return [view for i in range(element.GetNumberOfNestedElements()) for view in _views_of(element.GetNestedElement(i))]
