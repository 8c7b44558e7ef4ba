# SPDX-License-Identifier: Apache-2.0
"""How a question travels: every picture once, and from then on by its fingerprint."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

from pose_bridge.views import Question, View

_PICTURE = ("image", "camera", "mask")  # what View.fingerprint covers
_VIEWS = ("reference", "target", "reference_context", "target_context")

T = TypeVar("T")


class MissingPicturesError(Exception):
    """The question names pictures that were forgotten, and does not bring them."""


class Recent(Generic[T]):
    """What was used last, by name, up to a size in bytes."""

    def __init__(self, max_size: int) -> None:
        self._max_size = max_size
        self._entries: OrderedDict[str, tuple[T, int]] = OrderedDict()
        self._size = 0

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def __getitem__(self, name: str) -> T:
        return self._entries[name][0]

    def use(self, name: str, value: T, size: int) -> None:
        """Put an entry in front, and drop the last ones that are too much."""
        self._size += size - self._entries.pop(name, (None, 0))[1]
        self._entries[name] = (value, size)
        while self._size > self._max_size:
            self._size -= self._entries.popitem(last=False)[1][1]

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()
        self._size = 0


def to_body(question: Question, sent: Recent[None]) -> dict[str, Any]:
    """Return the question as the body of a message, with those pictures that were not sent yet.

    Args:
        question: The question.
        sent: The pictures that the other side has; changed to what it will have.
    """
    body = _fields(question, leave_out=_VIEWS)
    for name in _VIEWS:
        body[name] = [
            _fields(view, leave_out=_PICTURE) | {"picture": view.fingerprint}
            for view in _views(question, name)
        ]
    pictures = {view.fingerprint: view for name in _VIEWS for view in _views(question, name)}
    body["pictures"] = {
        name: {field: getattr(view, field) for field in _PICTURE}
        for name, view in pictures.items()
        if name not in sent
    }
    for name, view in pictures.items():
        sent.use(name, None, _size(view))
    return body


def from_body(body: dict[str, Any], known: Recent[View]) -> Question:
    """Undo `to_body`.

    Args:
        body: Of the message.
        known: The pictures that came before; those of this question are added.

    Raises:
        MissingPicturesError: A picture neither came before nor now.
        BadInputError: The question cannot be meant.
    """
    pictures = {
        name: _named(View(id=name, **picture), name) for name, picture in body.pop("pictures").items()
    }
    named = [view["picture"] for name in _VIEWS for view in body[name]]
    for name in dict.fromkeys(named):
        if name not in pictures:
            if name not in known:
                raise MissingPicturesError(name)
            pictures[name] = known[name]
    for name in dict.fromkeys(named):
        known.use(name, pictures[name], _size(pictures[name]))
    sides: dict[str, Any] = {
        name: tuple(_view(fields, pictures) for fields in body.pop(name)) for name in _VIEWS
    }
    (reference,), (target,) = sides.pop("reference"), sides.pop("target")
    return Question(reference=reference, target=target, **sides, **body)


def _view(fields: dict[str, Any], pictures: dict[str, View]) -> View:
    picture = pictures[fields.pop("picture")]
    view = View(**fields, **{field: getattr(picture, field) for field in _PICTURE})
    return _named(view, picture.fingerprint)


def _named(view: View, fingerprint: str) -> View:
    """The view with its fingerprint as the client knows it: hashing it again takes longer than all else."""
    vars(view)["fingerprint"] = fingerprint
    return view


def _views(question: Question, name: str) -> Iterator[View]:
    found = getattr(question, name)
    yield from [found] if isinstance(found, View) else found


def _fields(record: Any, leave_out: tuple[str, ...]) -> dict[str, Any]:
    return {f.name: getattr(record, f.name) for f in dataclasses.fields(record) if f.name not in leave_out}


def _size(view: View) -> int:
    return view.image.nbytes + (0 if view.mask is None else view.mask.nbytes)
