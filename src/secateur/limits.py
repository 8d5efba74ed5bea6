"""Upper limits for values that files declare. They are checked before any object is built and are far above what
detectors need.
"""

from __future__ import annotations

MAX_CLASSES = 100_000
"""Classes of a detector or a data set: five times ImageNet-21k, the largest labelled set."""
MAX_LEVELS = 32
"""Levels of a detection head; published detectors have 2 to 5."""
MAX_BLOCKS = 5_000
"""Rows of a topology; the longest published one has 54."""
MAX_REPEATS = 1_000
"""Repeats of one row; published topologies have up to 15."""
MAX_LINKS = 5_000
"""Repeats of all rows in total; YOLOv5x6 has about 90."""
MAX_ARGUMENT = 65_536
"""Any number in a row: widths (1,280 in YOLOv5x6), kernels (13), groups, factors."""
MAX_ARGUMENTS = 64
"""Numbers in a row, including those in lists; published rows have up to 7."""
MAX_CHANNELS = 10_000_000
"""Channels of all layers of a plan in total; YOLOv5x6 has 100,000."""
MAX_PARAMETERS = 500_000_000
"""Parameters of a network that is built from a model file: three times YOLOv5x6, 2 GB in fp32."""

MAX_YAML = 4_000_000
"""Bytes of a YAML file; a data set with the 20,000 names of ImageNet-21k has 0.6 MB."""
MAX_YAML_DEPTH = 50
"""Nesting depth of a YAML file; a recipe with a repetition has 7."""
MAX_YAML_VALUES = 100_000
"""Values of a YAML file; values repeated by an alias are counted each time."""

MAX_PICKLE = 8_000_000
"""Bytes of the pickle in a `.pt` file without its tensors: 40 times YOLOv5x6. One byte can expand to 64 in memory."""
MAX_UNPACKED = 4
"""Expansion factor of a `.pt` file that was compressed afterwards. Weights do not compress to a quarter, and PyTorch
does not compress.
"""
MAX_EXPANDED = 8
"""Total size of the tensors relative to their file. Layers share tensors, and grids repeat rows."""
EXPANDED_SLACK = 16_000_000
"""Bytes allowed in addition, for small files."""
MAX_MODULES = 50_000
"""Modules of a network in a `.pt` file; YOLOv5x6 has 800."""
MAX_VALUES = 1_000_000
"""Plain values kept from a `.pt` file (hyper-parameters, names), and an eighth of its characters."""
