"""The most that a file may declare: checked before anything is made of it, and far above what detectors need."""

from __future__ import annotations

MAX_CLASSES = 100_000
"""Classes of a detector or a data set: five times those of ImageNet-21k, the largest set that people label."""
MAX_LEVELS = 32
"""Levels of a head; published detectors have 2 to 5."""
MAX_BLOCKS = 5_000
"""Rows of a topology; the longest published one has 54."""
MAX_REPEATS = 1_000
"""Repeats of one row; published topologies have up to 15."""
MAX_LINKS = 5_000
"""Repeats of all rows together; YOLOv5x6 has about 90."""
MAX_ARGUMENT = 65_536
"""Size of any number in a row: widths (1,280 in YOLOv5x6), kernels (13), groups, factors."""
MAX_ARGUMENTS = 64
"""Numbers in a row, lists counted out; published rows have up to 7."""
MAX_CHANNELS = 10_000_000
"""Channels of all layers of a plan together; those of YOLOv5x6 are 100,000."""
MAX_PARAMETERS = 500_000_000
"""Values of a network that is built from a model file: three times those of YOLOv5x6, 2 GB in fp32."""

MAX_YAML = 4_000_000
"""Bytes of a YAML file; a data set's with the 20,000 names of ImageNet-21k has 0.6 MB."""
MAX_YAML_DEPTH = 50
"""Levels of a YAML file; a recipe with a repetition has 7."""
MAX_YAML_VALUES = 100_000
"""Values of a YAML file, those that an alias repeats counted each time."""

MAX_PICKLE = 8_000_000
"""Bytes of the pickle in a `.pt`, without its tensors: 40 times that of YOLOv5x6. A byte can take 64 of memory."""
MAX_UNPACKED = 4
"""Times that a `.pt` may grow where it was compressed afterwards: weights do not compress to a quarter, and PyTorch
does not compress at all."""
MAX_EXPANDED = 8
"""Times the size of their file that tensors may take together: layers share tensors, and grids repeat rows."""
EXPANDED_SLACK = 16_000_000
"""Bytes on top of that, for small files."""
MAX_MODULES = 50_000
"""Modules of a network in a `.pt`; YOLOv5x6 has 800."""
MAX_VALUES = 1_000_000
"""Plain values that are kept of a `.pt` (hyper-parameters, names), and an eighth of its letters."""
