"""Captions that lie inside picture files or in a sidecar: EXIF, IPTC and XMP, as photo programs write them.

Pillow finds them; of XMP, which is XML, `dc:description`, `dc:title` and `dc:subject` are read, with all of
their languages. Of an XMP packet in several parts only the first one is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

from PIL import ExifTags, Image, IptcImagePlugin
from PIL.ImageFile import ImageFile

from unicross.data.bombs import slow_start
from unicross.data.decoding import image_kinds
from unicross.reading import LARGEST_PICTURE, open_file

EXIF = {
    ExifTags.Base.ImageDescription: "utf-8",
    ExifTags.Base.XPTitle: "utf-16-le",
    ExifTags.Base.XPSubject: "utf-16-le",
    ExifTags.Base.XPComment: "utf-16-le",
}
"""The tags that hold captions, with the encoding of their bytes."""
IPTC = ((2, 120), (2, 105), (2, 5))
"""Caption-Abstract, Headline, Object Name."""
IPTC_KEYWORDS = (2, 25)
DC = "{http://purl.org/dc/elements/1.1/}"
RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"

NOTHING_SAID = re.compile(
    r"(?i)\s*|OLYMPUS DIGITAL CAMERA|SONY DSC|DCIM\\\d+.*|Exif_JPEG_PICTURE|default|untitled|screenshot|"
    r"<?(?:SAMSUNG|KONICA|MINOLTA|Digital ?Camera).*|.*\.(?:jpe?g|png|tiff?|heic)"
)
"""What cameras and programs write where nobody said anything."""


class Said(NamedTuple):
    """What somebody wrote of a picture."""

    texts: list[str]
    """Descriptions and titles."""
    keywords: list[str]


NOTHING = Said([], [])


def embedded_captions(path: Path) -> dict[str, Said]:
    """What is said inside a picture file, by the place where it lies: EXIF, IPTC, XMP.

    Nothing where nothing is said or the file cannot be read.
    """
    try:
        with open_file(path, LARGEST_PICTURE) as file:
            if slow_start(file):
                return {}
            with Image.open(file, formats=image_kinds()) as image:
                said = {"EXIF": _exif(image), "IPTC": _iptc(image), "XMP": xmp_captions(_packet(image))}
    except Exception:  # as in images.decode; a file that is no picture is said where its header is checked
        return {}
    return {place: one for place, one in said.items() if one.texts or one.keywords}


def captions_of(said: Iterable[Said]) -> list[str]:
    """The captions that several places give: all that is described, else the keywords as one."""
    places = list(said)
    texts = unique(text for one in places for text in one.texts)
    return texts or unique([", ".join(unique(word for one in places for word in one.keywords))])


def xmp_captions(packet: bytes) -> Said:
    """Description, title and subjects of an XMP packet or sidecar; nothing where it is not XMP.

    Entities are refused: XMP has none, and small files can hold large ones.
    """
    text = _decoded(packet)
    if not text or "<!DOCTYPE" in text or "<!ENTITY" in text:
        return NOTHING
    try:
        root = ElementTree.fromstring(text.strip("\0\ufeff \r\n\t"))
    except (ElementTree.ParseError, ValueError):
        return NOTHING
    texts: list[str] = []
    for name in ("description", "title"):
        for described in root.iter(f"{RDF}Description"):
            texts.append(described.get(f"{DC}{name}", ""))  # the short form, an attribute
        texts += [entry for element in root.iter(f"{DC}{name}") for entry in _entries(element)]
    return Said(unique(texts), unique(w for element in root.iter(f"{DC}subject") for w in _entries(element)))


def is_caption(text: str) -> bool:
    """Whether somebody said it, and not a camera."""
    return NOTHING_SAID.fullmatch(text) is None


def unique(texts: Iterable[str]) -> list[str]:
    """The texts that say something, each once, in their order."""
    return list(dict.fromkeys(text.strip() for text in texts if is_caption(text)))


def _entries(element: Any) -> list[str]:
    entries = [entry.text or "" for entry in element.iter(f"{RDF}li")]
    return entries or [element.text or ""]


def _exif(image: Image.Image) -> Said:
    exif = image.getexif()
    return Said(unique(_text(exif.get(tag), encoding) for tag, encoding in EXIF.items()), [])


def _iptc(image: ImageFile) -> Said:
    info: Any = IptcImagePlugin.getiptcinfo(image) or {}
    keywords = info.get(IPTC_KEYWORDS) or []
    words = keywords if isinstance(keywords, list) else [keywords]
    return Said(
        unique(_text(info.get(place), "utf-8") for place in IPTC), unique(_text(w, "utf-8") for w in words)
    )


def _packet(image: Image.Image) -> bytes:
    packet = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or b""
    if not packet and hasattr(image, "tag_v2"):
        packet = image.tag_v2.get(700) or b""
    return packet.encode() if isinstance(packet, str) else bytes(packet)


def _decoded(packet: bytes) -> str:
    """XMP in UTF-8, or in UTF-16 or UTF-32 of either order, which the zeros before or after `<` tell."""
    start = packet[:4]
    encodings = {b"\0\0\0<": "utf-32-be", b"<\0\0\0": "utf-32-le", b"\0<": "utf-16-be", b"<\0": "utf-16-le"}
    encoding = encodings.get(start) or encodings.get(start[:2]) or "utf-8"
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        encoding = "utf-16"
    text = packet.decode(encoding, "replace")
    # ElementTree goes by what the declaration says, which is not true of text any more.
    return re.sub(r"^\s*\ufeff?<\?xml[^>]*\?>", "", text)


def _text(value: Any, encoding: str) -> str:
    if value is None:
        return ""
    if isinstance(value, list | tuple):
        value = value[0] if value and isinstance(value[0], bytes | str) else bytes(value)
    if isinstance(value, bytes):
        try:
            value = value.decode(encoding)
        except UnicodeDecodeError:
            value = value.decode("cp1252", "replace")
    elif isinstance(value, str) and encoding == "utf-8" and not value.isascii():
        with suppress(UnicodeError):
            value = value.encode("latin-1").decode()  # Pillow takes EXIF's bytes for Latin-1
    return str(value).strip("\0 \r\n\t")
