"""Read an XML file without what makes XML dangerous."""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from segkd.data.image_io import read_bytes
from segkd.errors import UserError


def read_xml(path: Path) -> Element:
    """Return the root element of an XML file.

    Raises:
        UserError: The file is no XML, or declares a document type, whose entities can expand to gigabytes or name other
            files; no annotation tool writes one.
    """

    def refuse_document_type(*_: object) -> None:
        raise UserError(
            f"{path} declares a document type, which annotations do not need; remove its lines <!DOCTYPE …>"
        )

    builder = TreeBuilder()
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = refuse_document_type
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(read_bytes(path), True)
        return builder.close()
    except (expat.ExpatError, LookupError, ValueError) as error:  # LookupError: an unknown encoding
        raise UserError(f"{path} is no valid XML ({error}); export it again") from None
