"""Dialogs that never wait: what they say is kept, and their answers come from lists that a test fills."""

from __future__ import annotations

import contextlib
import logging
import traceback

import qt
import slicer
import slicer.util

_YES = ("Ok", "Yes", "Save", "Open", "Apply", "Retry", "YesToAll", "SaveAll", "Ignore")
_NO = ("No", "Cancel", "Close", "Abort", "Discard", "NoToAll")


def take(answers: list, otherwise):
    return answers.pop(0) if answers else otherwise


def _button(answer, offered) -> int:
    """The standard button that an answer means: True, False, a name as "Retry", or the button itself."""
    if isinstance(answer, str):
        return getattr(qt.QMessageBox, answer)
    if isinstance(answer, bool):
        for name in _YES if answer else _NO:
            if int(offered) & int(getattr(qt.QMessageBox, name)):
                return getattr(qt.QMessageBox, name)
        return qt.QMessageBox.Ok if answer else qt.QMessageBox.Cancel
    return qt.QMessageBox.StandardButton(int(answer))


def _icon(value) -> str:
    return {1: "info", 2: "warning", 3: "error", 4: "question"}.get(int(value), "message")


def install_dialogs(app) -> None:
    """Replace what would open a window in ``qt`` and ``slicer.util``."""
    from . import ctk

    def said(kind: str, text: str) -> None:
        app.messages.append((kind, str(text)))

    def static(kind: str):
        def call(parent, title, text, buttons=None, default=None) -> int:
            buttons = (qt.QMessageBox.Yes | qt.QMessageBox.No) if buttons is None and kind == "question" else buttons
            said(kind, text)
            return _button(take(app.answers, True), qt.QMessageBox.Ok if buttons is None else buttons)

        return staticmethod(call)

    def execute_box(box) -> int:
        said(_icon(box.icon), "\n\n".join(text for text in (box.text, box.informativeText) if text))
        answer = take(app.answers, True)
        if isinstance(answer, str):
            for button in box.buttons():
                if button.text.replace("&", "") == answer:
                    button.click()
                    return box.standardButton(button)
        return _button(answer, box.standardButtons)

    def execute(dialog) -> int:
        said("dialog", dialog.windowTitle)
        answer = take(app.answers, True)
        if callable(answer):
            answer = answer(dialog)
        (dialog.accept if answer in (True, None) else dialog.reject)()
        return dialog.result()

    def execute_files(dialog) -> int:
        chosen = take(app.files, "")
        dialog.selectedFiles = lambda: [chosen] if isinstance(chosen, str) else list(chosen)
        app.file_dialogs.append(dialog.windowTitle)
        return int(bool(chosen))

    def execute_menu(menu, *_):
        said("menu", menu.title)
        wanted = take(app.answers, None)
        action = next((action for action in menu.actions() if action.text == wanted), None)
        if action is not None:
            action.trigger()
        return action

    def file(several: bool = False):
        def call(parent=None, caption="", directory="", *filters, **options):
            app.file_dialogs.append(caption)
            chosen = take(app.files, [] if several else "")
            return [str(path) for path in chosen] if several else str(chosen)

        return staticmethod(call)

    def given():
        def call(parent=None, title="", label="", *rest):
            said("input", label)
            return take(app.answers, "")

        return staticmethod(call)

    def number(parent, title, label, value=0, least=-(2**31), most=2**31 - 1, step=1, ok=None) -> int:
        """PythonQt gives the number alone, on Cancel (an answer of False) the first one; ``ok`` says which it was."""
        said("input", label)
        answer = take(app.answers, value)
        if ok is not None:
            ok.value = answer is not False
        return value if answer is False else int(answer)

    for box in (qt.QMessageBox, ctk.ctkMessageBox):
        box.exec = box.exec_ = execute_box
    for name, kind in (("information", "info"), ("about", "info"), ("warning", "warning"), ("critical", "error")):
        setattr(qt.QMessageBox, name, static(kind))
    qt.QMessageBox.question = static("question")
    qt.QMenu.exec = qt.QMenu.exec_ = execute_menu  # an answer is the text of an action
    qt.QDialog.exec = qt.QDialog.exec_ = execute
    qt.QInputDialog.getText = qt.QInputDialog.getItem = qt.QInputDialog.getMultiLineText = given()
    qt.QInputDialog.getInt = staticmethod(number)
    qt.QFileDialog.exec = qt.QFileDialog.exec_ = execute_files
    for name in ("getOpenFileName", "getSaveFileName", "getExistingDirectory"):
        setattr(qt.QFileDialog, name, file())
    qt.QFileDialog.getOpenFileNames = file(several=True)

    def display(kind: str, level: int):
        def call(text, windowTitle=None, parent=None, standardButtons=None, **kwargs) -> None:
            logging.log(level, text)
            said(kind, text)

        return call

    def confirm(kind: str, default: bool = True):
        def call(text, windowTitle=None, parent=None, **kwargs) -> bool:
            said(kind, text)
            answer = take(app.answers, default)
            return answer in _YES if isinstance(answer, str) else bool(answer)

        return call

    def message_box(text, parent=None, **kwargs) -> int:
        said(_icon(kwargs.get("icon", 0)), text)
        return _button(take(app.answers, True), kwargs.get("standardButtons", qt.QMessageBox.Ok))

    def delay_display(message, autoCloseMsec=1000, parent=None, **kwargs) -> None:
        logging.info(message)
        said("delay", message)
        slicer.app.processEvents()

    @contextlib.contextmanager
    def try_with_error_display(message=None, show=True, waitCursor=False):
        try:
            yield
        except Exception as error:
            if show:
                said("error", f"{error}" if message is None else f"{message}\n\n{error}")
                logging.error(traceback.format_exc())
            raise

    class MessageDialog:
        def __init__(self, message, show=True, logLevel=None) -> None:
            said("info", message)

        def __enter__(self):
            return self

        def __exit__(self, *exception) -> None:
            pass

    util = slicer.util
    util.infoDisplay, util.warningDisplay = display("info", logging.INFO), display("warning", logging.WARNING)
    util.errorDisplay, util.messageBox = display("error", logging.ERROR), message_box
    util.confirmOkCancelDisplay = util.confirmYesNoDisplay = confirm("question")
    util.confirmRetryCloseDisplay = confirm("retry", False)  # yes for ever would retry for ever
    util.delayDisplay, util.tryWithErrorDisplay, util.MessageDialog = delay_display, try_with_error_display, MessageDialog
