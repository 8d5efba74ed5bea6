"""Networks of the package `ultralytics` (YOLOv8, 9, 10, 11, 12, 26), an optional extra that uses the installed
package."""

from __future__ import annotations

from secateur.families.family import FAMILIES
from secateur.families.ultralytics.family import UltralyticsFamily

FAMILIES.register(UltralyticsFamily.kind)(UltralyticsFamily())
