"""Drawings that tests read back: their marks by title."""

from __future__ import annotations

import xml.etree.ElementTree as ET

SVG = "{http://www.w3.org/2000/svg}"


def parsed(svg: str) -> ET.Element:
    return ET.fromstring(svg)


def named(svg: str, style: str) -> dict[str, tuple[float, float]]:
    """What the circles of a style call themselves, with their centres."""
    return {
        circle.findtext(f"{SVG}title") or "": (float(circle.get("cx", "nan")), float(circle.get("cy", "nan")))
        for circle in parsed(svg).iter(f"{SVG}circle")
        if circle.get("class") == style
    }
