"""Where a file that a document names is on this machine, and whether it may be read."""

import os
import re
import socket
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from ptychoseg_stream.errors import DatasetError

_DRIVE = re.compile(r"/?([A-Za-z]:)([/\\].*|$)", re.DOTALL)
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(?://)?", re.DOTALL)
# The number in the name of a file: %d, %06d, %6.6d, {}, {:d}, {:06d}, {0:06d}.
_NUMBER = re.compile(
    r"%(?P<zero>0?)(?P<width>\d{1,2})?(?:\.(?P<digits>\d{1,2}))?d"
    r"|\{0?(?::(?P<zero2>0?)(?P<width2>\d{1,2})?d?)?\}"
)


def local_path(uri: str, root_map: Mapping[str, str]) -> str:
    """Return the path of a ``file:`` URI, or of a path, on this machine.

    Parameters
    ----------
    uri : str
        As in a document; a URI is percent-encoded, a path is taken as it is.
    root_map : mapping of str to str
        Folder as the detector names it -> the same folder as mounted here; the longest wins.

    Raises
    ------
    DatasetError
        For any other scheme, for a path of a Windows machine or of another host that root_map does
        not map, and for a relative path.
    """
    where, path = _spelt(uri)
    for root in sorted(root_map, key=len, reverse=True):
        folder = _spelt(root.rstrip("/\\"))[1]
        if _below(path, folder, fold=bool(where)):
            return root_map[root].rstrip("/") + path[len(folder) :]
    if where:
        raise DatasetError(
            f"{uri} is on {where}: mount its folder here and map it, as in "
            "root_map: {X:/data: /mnt/data} or {//host/data: /mnt/data}"
        )
    if not path.startswith("/"):
        raise DatasetError(f"{uri!r} is not an absolute path: see what the device emits")
    return path


def _spelt(uri: str) -> tuple[str, str]:
    """Return which other machine a URI or path is of ("" for this one), and the path.

    Paths of Windows come as ``X:/folder``, those of another host as ``//host/folder``.
    """
    if uri.startswith("\\\\"):
        return "another host", uri.replace("\\", "/")
    if not (scheme := _SCHEME.match(uri)):
        where = "a Windows machine" if _DRIVE.match(uri) else ""
        return where, uri.replace("\\", "/") if where else uri
    if scheme[1].lower() != "file":
        raise DatasetError(
            f"cannot read {uri}: only file:// URIs and paths can be read; write frames to files"
        )
    rest = uri[len("file:") :]
    host, slash, tail = rest[2:].partition("/") if rest.startswith("//") else ("", "", rest)
    path = unquote(slash + tail)
    if drive := _DRIVE.match(path):
        return "a Windows machine", drive[1] + drive[2].replace("\\", "/")
    here = ("", "localhost", socket.gethostname().lower())
    return ("", path) if host.lower() in here else ("another host", f"//{host}{path}")


def _below(path: str, folder: str, fold: bool) -> bool:
    # Names of hosts, and all of Windows, know no upper and lower case.
    path, folder = (path.casefold(), folder.casefold()) if fold else (path, folder)
    return path == folder or path.startswith(folder + "/")


class Fence:
    """Says which files may be read.

    Parameters
    ----------
    roots : sequence of str
        Folders that files must lie in, symbolic links resolved; empty: no bounds for files that
        documents name.
    """

    def __init__(self, roots: tuple[str, ...] = ()) -> None:
        self._roots = tuple(os.path.realpath(root) for root in roots)

    def check(self, path: str) -> None:
        """Check a file that a document names, without opening it.

        Raises
        ------
        DatasetError
            When it lies outside of the roots, or is no regular file.
        FileNotFoundError, OSError
            When it is not there (yet).
        """
        self.check_place(path)
        check_regular(path)

    def check_place(self, path: str) -> None:
        """Check where a file or folder lies; it need not exist."""
        real = _real(path)
        if self._roots and not any(_within(real, root) for root in self._roots):
            raise DatasetError(
                f"{path} lies outside of the folders that may be read ({', '.join(self._roots)}): "
                "add its folder to frames.roots of the profile if it should be read"
            )

    def check_words(self, words: Mapping[str, Any]) -> None:
        """Check the texts of a document that somebody else makes a path of.

        Raises
        ------
        DatasetError
            When there are roots, and a text leads up, or is the path of a file outside of them.
        """
        for name, word in words.items():
            if not self._roots or not isinstance(word, str):
                continue
            if ".." in Path(word).parts:
                raise DatasetError(f"{name} = {word!r} of a document leads out of its folder")
            if word.startswith("/") and Path(word).exists():
                self.check_place(word)

    def check_led(self, path: str, led_from: str) -> None:
        """Check a file that another file leads to (a link, a virtual dataset, raw storage).

        Without roots it must lie in the folder of the file that leads to it, or below.

        Raises
        ------
        DatasetError, OSError
            As `check`.
        """
        folder = str(Path(_real(led_from)).parent)
        if not self._roots and not _within(_real(path), folder):
            raise DatasetError(
                f"{led_from} leads to {path}, which lies outside of its folder: "
                "add the folders of both to frames.roots of the profile if it should be read"
            )
        self.check(path)


def check_regular(path: str, or_folder: bool = False) -> None:
    """Refuse a FIFO (its open would wait for ever), device, socket or folder.

    Raises
    ------
    DatasetError
        When it is no regular file.
    OSError
        When it is not there (yet).
    """
    mode = Path(path).stat().st_mode
    if not (stat.S_ISREG(mode) or (or_folder and stat.S_ISDIR(mode))):
        raise DatasetError(f"{path} is {_kind(mode)}, not a file: see what the device emits")


def _kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "a folder"
    return "a FIFO" if stat.S_ISFIFO(mode) else "a device or socket"


def _real(path: str) -> str:
    try:
        return os.path.realpath(path)
    except ValueError as error:
        raise DatasetError(f"{path!r} is no path: {error}") from None


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


class FileNames:
    """Names of the files of a sequence.

    Parameters
    ----------
    place : str
        Folder (ends with a slash) or beginning of the names.
    template : str
        As area detector and bluesky write it: ``%s%s_%6.6d.tiff``, ``_{:06d}.tif``. One number;
        the last ``%s`` of two, or the only one, is `filename`. Nothing else is interpreted.
    filename : str
        See above.

    Raises
    ------
    DatasetError
        When the template has two numbers, or anything else to fill in.
    """

    def __init__(self, place: str, template: str, filename: str = "") -> None:
        self._place = place
        numbers = list(_NUMBER.finditer(template))
        self.numbered = bool(numbers)
        head, tail = template, ""
        if numbers:
            head, tail = template[: numbers[0].start()], template[numbers[0].end() :]
        rest = head.replace("%s", "") + tail
        if len(numbers) > 1 or head.count("%s") > 2 or re.search(r"[%{}]", rest):
            raise DatasetError(
                f"the file name template {template!r} of {place} is not understood: "
                "one number, as in %s%s_%6.6d.tiff or _{:06d}.tif, is"
            )
        # Of "%s%s" the first is the folder, which is known already.
        filled = head.replace("%s", "", head.count("%s") - 1).replace("%s", filename)
        # A folder in the name may only be one below.
        if ".." in Path(filled + tail).parts:
            raise DatasetError(f"the file name {filled + tail!r} of {place} leads out of it")
        self._head, self._tail = filled, tail
        self._zeros, self._width = _format_of(numbers[0]) if numbers else (0, 0)
        self.template = template

    def __str__(self) -> str:
        """Return the place and the template."""
        return self._place + self.template

    def of(self, number: int) -> str:
        """Return the path of a file."""
        digits = str(number).zfill(self._zeros).rjust(self._width) if self.numbered else ""
        name = self._head + digits + self._tail
        # Both "folder/" + "/name" and "folder" + "name" are written; the second only for folders.
        if self._place.endswith("/"):
            return self._place + name.lstrip("/")
        path = Path(self._place + name)
        if not name.startswith("/") and not path.exists() and Path(self._place).is_dir():
            return f"{self._place}/{name}"
        return str(path)


def _format_of(match: re.Match[str]) -> tuple[int, int]:
    """Return to how many digits, and to how many characters, a number is filled up."""
    width = int(match["width"] or match["width2"] or 0)
    digits = int(match["digits"] or 0)
    return (width, width) if match["zero"] or match["zero2"] else (digits, width)
