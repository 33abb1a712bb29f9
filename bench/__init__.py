"""kdbench: a fair, paired, tracked benchmark of knowledge-distillation methods."""

__version__ = "0.1.0"
