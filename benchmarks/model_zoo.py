"""The models of `benchmarks/models.py`, small or of a published width with a few layers; each a builder for `inlay compile`.

    inlay compile benchmarks/model_zoo.py:bert -o build/bert

`ZOO` says of each what it is. Weights are random and nothing is downloaded.
"""

from __future__ import annotations

import zoo_language
import zoo_perception
from zoo_entry import ZOO, Built, Entry

globals().update({name: getattr(room, name) for room in (zoo_language, zoo_perception) for name in ZOO if hasattr(room, name)})

__all__ = ["ZOO", "Built", "Entry"]
