"""What does the capture object look like in a browser? Its frame as PNG."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

from PIL import Image
from pydicom import dcmread
from pydicom.pixels.utils import pixel_array


def montage_png(path: Path) -> bytes:
    """Render the first frame of a Secondary Capture object that the node made itself."""
    dataset = dcmread(path)
    pixels = pixel_array(dataset, index=0) if int(dataset.get("NumberOfFrames") or 1) > 1 else pixel_array(dataset)
    png = BytesIO()
    Image.fromarray(pixels).save(png, format="PNG")
    return png.getvalue()
