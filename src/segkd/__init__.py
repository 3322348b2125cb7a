"""segkd: knowledge distillation for semantic segmentation."""

import os

# albumentations asks the package index for its newest release at every import; an offline run would wait for it.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

__version__ = "0.1.0"
